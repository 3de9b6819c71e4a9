"""Texts to choose from, many to a line."""

from __future__ import annotations

from hypothesis import strategies as st


def one_of(texts: str) -> st.SearchStrategy[str]:
    """One of the texts that stand there with a middle dot between two."""
    return st.sampled_from([text.strip() for text in texts.split(" ·")])
