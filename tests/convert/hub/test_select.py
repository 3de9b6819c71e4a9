"""Which files of a repository are chosen."""

from __future__ import annotations

import pytest

from llama_convert.errors import SourceNotFound, UnsupportedModel, UsageError
from llama_convert.hub.listing import Listing, RemoteFile
from llama_convert.hub.select import choose_gguf, source_files
from tests.support.convert.local_hub import COMMIT


def listing(*paths: str) -> Listing:
    return Listing("someone/tiny", COMMIT, [RemoteFile(path, 1_000_000_000) for path in paths])


FILES = listing(
    "tiny-Q4_K_S.gguf",
    "tiny-Q4_K_M.gguf",
    "tiny-Q8_0.gguf",
    "mmproj-tiny-Q4_K_M.gguf",
    "big.Q6_K-00001-of-00002.gguf",
    "big.Q6_K-00002-of-00002.gguf",
)


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        (None, "tiny-Q4_K_M.gguf"),
        ("q4_k_s", "tiny-Q4_K_S.gguf"),
        ("Q8_0", "tiny-Q8_0.gguf"),
        ("Q6_K", "big.Q6_K-00001-of-00002.gguf"),
    ],
)
def test_the_whole_tag_is_matched(tag: str | None, path: str) -> None:
    choice = choose_gguf(FILES, tag)
    assert choice is not None
    assert choice.files[0].path == path
    assert len(choice.files) == (2 if tag == "Q6_K" else 1)


@pytest.mark.parametrize("tag", ["Q4_K", "Q4", "Q5_K_M"])
def test_a_tag_that_is_not_there_is_answered_with_those_that_are(tag: str) -> None:
    with pytest.raises(UsageError, match=rf"has no {tag}; it has .*Q4_K_M \(1\.0 GB\)"):
        choose_gguf(FILES, tag)


def test_a_missing_part_is_named() -> None:
    with pytest.raises(SourceNotFound, match="1 of the 2 parts"):
        choose_gguf(listing("big.Q6_K-00001-of-00002.gguf"), "Q6_K")


def test_what_is_fetched_of_a_source() -> None:
    both = listing(
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "original/consolidated.00.pth",
        "original/params.json",
        "tokenizer.model",
        "picture.png",
    )
    small, weights = source_files(both)
    assert [file.path for file in small] == ["config.json", "tokenizer.model"]
    assert [file.path for file in weights] == ["model.safetensors"]
    assert [file.path for file in source_files(listing("pytorch_model.bin"))[1]] == ["pytorch_model.bin"]
    with pytest.raises(UnsupportedModel, match="adapter"):
        source_files(listing("adapter_config.json", "adapter_model.bin"))
    with pytest.raises(SourceNotFound, match="neither"):
        source_files(listing("README.md"))
