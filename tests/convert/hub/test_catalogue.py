"""What the name of a model stands for."""

from __future__ import annotations

import pytest

from llama_convert.errors import UsageError
from llama_convert.hub.catalogue import parse_target


def test_targets() -> None:
    assert parse_target("llama2:7b-chat").repository == "TheBloke/Llama-2-7B-Chat-GGUF"
    assert parse_target("llama2:70b", official=True).repository == "meta-llama/Llama-2-70b-hf"
    target = parse_target("owner/repo.name:Q5_K_M")
    assert (target.repository, target.quantization) == ("owner/repo.name", "Q5_K_M")
    for text in ("llama3", "a/b/c", "", "owner/", "../x"):
        with pytest.raises(UsageError, match="owner/repo"):
            parse_target(text)
