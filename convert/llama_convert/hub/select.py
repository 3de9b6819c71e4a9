"""Chooses which files of a repository are fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from llama_convert.errors import SourceNotFound, UsageError, only_adapter
from llama_convert.files import LICENSES
from llama_convert.hub.listing import Listing, RemoteFile

_PREFERRED = ("Q4_K_M", "Q8_0")
_NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "-vocab")
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_TAG = re.compile(r"(?:I?Q\d\w*|BF16|F16|F32|FP16)", re.IGNORECASE)
_TEXTS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "*.index.json",
    "params.json",
    "checklist.chk",
    "README.md",
    *LICENSES,
)
_WEIGHTS = (("*.safetensors",), ("pytorch_model*.bin",), ("consolidated.*.pth",))


@dataclass(frozen=True, slots=True)
class GGUFChoice:
    """A model in a GGUF repository: its quantisation and its files, several where it is split."""

    quantization: str
    files: Sequence[RemoteFile]

    @property
    def nbytes(self) -> int:
        return sum(file.size for file in self.files)


def choose_gguf(listing: Listing, quantization: str | None) -> GGUFChoice | None:
    """The model of this quantisation, or the default one for None; None where the repository has no GGUF file.

    Raises UsageError where several are asked for, or the repository has no such quantisation (the message lists those
    that it has, with their sizes), and SourceNotFound where a part of a split model is missing.
    """
    choices = gguf_choices(listing)
    if not choices:
        return None
    if quantization and "," in quantization:
        raise UsageError(f"{listing.repository} holds ready-made models: choose one quantisation, not {quantization}")
    wanted = [quantization.strip().upper()] if quantization else [*_PREFERRED, choices[0].quantization]
    for tag in wanted:
        for choice in choices:
            if choice.quantization == tag:
                return _whole(listing, choice)
    known = ", ".join(f"{choice.quantization} ({choice.nbytes / 1e9:.1f} GB)" for choice in choices)
    raise UsageError(f"{listing.repository} has no {quantization}; it has {known}")


def gguf_choices(listing: Listing) -> list[GGUFChoice]:
    """All models in a GGUF repository, in the order of their names."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in sorted(listing.files, key=lambda file: file.path):
        name = file.path.rpartition("/")[2].lower()
        if name.endswith(".gguf") and not any(word in name for word in _NOT_MODELS):
            groups.setdefault(_SPLIT.sub(".gguf", file.path), []).append(file)
    return [GGUFChoice(_tag(path), files) for path, files in groups.items()]


def _tag(path: str) -> str:
    """The quantisation in a file's name: its last part that looks like one."""
    parts = re.split(r"[-.]", path.rpartition("/")[2].removesuffix(".gguf"))
    return next((part.upper() for part in reversed(parts) if _TAG.fullmatch(part)), "UNKNOWN")


def _whole(listing: Listing, choice: GGUFChoice) -> GGUFChoice:
    found = _SPLIT.search(choice.files[0].path)
    if found and len(choice.files) != int(found[2]):
        raise SourceNotFound(f"{listing.repository}: has {len(choice.files)} of the {int(found[2])} parts of the model")
    return choice


def source_files(listing: Listing) -> tuple[list[RemoteFile], list[RemoteFile]]:
    """The small files and the weights of a repository that is to be converted.

    Of several kinds of weights the safest is taken: safetensors, then PyTorch's, then Meta's.

    Raises UnsupportedModel where it holds only an adapter, and SourceNotFound where it holds no weights that can be
    converted.
    """
    small = [file for file in listing.files if _matches(file, _TEXTS)]
    for patterns in _WEIGHTS:
        weights = [file for file in listing.files if _matches(file, patterns) and _belongs(file, patterns)]
        if weights:
            return small, weights
    if listing.file("adapter_config.json"):
        raise only_adapter(listing.repository)
    raise SourceNotFound(f"{listing.repository}: holds neither GGUF files nor weights that can be converted")


def license_files(listing: Listing) -> list[RemoteFile]:
    """The licences and notices of a repository."""
    return [file for file in listing.files if _matches(file, LICENSES)]


def _matches(file: RemoteFile, patterns: Sequence[str]) -> bool:
    """Whether the path fits one of the patterns; a star does not match a slash."""
    depth = file.path.count("/")
    return any(fnmatch(file.path, pattern) and pattern.count("/") == depth for pattern in patterns)


def _belongs(file: RemoteFile, patterns: Sequence[str]) -> bool:
    """Whether a file belongs to this layout: some repositories also hold safetensors of Meta's named `consolidated`."""
    return not file.path.startswith("consolidated") or patterns[0].startswith("consolidated")
