"""Fixtures of the conversion's tests: a vocabulary that is trained once, and folders made of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece

from tests.support.convert.corpus import sentences
from tests.support.convert.local_hub import LocalHub

VOCABULARY = 1000


@pytest.fixture(scope="session")
def spm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of the kind that Llama 2 has: BPE, byte fallback, text taken as it is."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(),
        model_writer=written,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.995,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    path.write_bytes(written.getvalue())
    return path


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    """A hub on this machine, without repositories."""
    made = LocalHub()
    yield made
    made.close()


def _lines() -> Iterator[str]:
    yield from sentences(2000, seed=1)
