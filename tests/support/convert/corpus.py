"""Generated text of many kinds: to train a vocabulary on, and to compare tokenizers with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

_LATIN = ["the", "model", "reads", "words", "and", "writes", "answers", "while", "small", "llamas", "sleep", "under"]
_ACCENTED = ["café", "naïve", "über", "Straße", "señor", "crème", "e\u0301te\u0301", "Å", "Zürich", "œuvre", "ﬁn"]
_CJK = "我想在苹果工作今天天气很好日本語の文章を書く한국어문장"
_RTL = ["שלום", "עולם", "مرحبا", "بالعالم", "سلام", "דבר"]
_INDIC = ["नमस्ते", "কেমন", "ไทย", "ខ្មែរ", "தமிழ்"]
_EMOJI = ["🚀", "🦙", "😶\u200d🌫️", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "👍🏽", "🇨🇭", "✅"]
_CODE = ["def f(x):", "\treturn x+1", "for(i=0;i<10;++i){}", "a != b", "<s>", "</s>", "[INST]", "▁", "{{ x }}", "\\n"]
_BREAKS = [" ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "        ", "\r\n", "\u00a0", "\u3000"]


def _word(source: random.Random) -> str:
    word = source.choice(_LATIN)
    return source.choice([word, word.title(), word.upper(), word + source.choice(".,;:!?'\"")])


def _number(source: random.Random) -> str:
    return str(source.randrange(10 ** source.randrange(1, 10))) + source.choice(["", ".5", "%", "th"])


def _contraction(source: random.Random) -> str:
    return source.choice(["I'm", "you've", "he'LL", "it's", "'Twas", "don't", "'''", "we'd"])


def _han(source: random.Random) -> str:
    return "".join(source.choices(_CJK, k=source.randrange(1, 8)))


def _code_points(source: random.Random) -> str:
    """Anything that UTF-8 can carry, so that bytes stand for most of it."""
    found = [source.randrange(1, 0x11000) for _ in range(source.randrange(1, 6))]
    return "".join(chr(point) for point in found if not 0xD800 <= point < 0xE000)


_KINDS: tuple[Callable[[random.Random], str], ...] = (
    _word,
    _word,
    _word,
    _number,
    _contraction,
    _han,
    _code_points,
    lambda source: source.choice(_ACCENTED),
    lambda source: source.choice(_RTL),
    lambda source: source.choice(_INDIC),
    lambda source: source.choice(_EMOJI),
    lambda source: source.choice(_CODE),
)


def sentences(count: int, seed: int) -> Iterator[str]:
    """`count` lines of words of all kinds but random code points."""
    source = random.Random(seed)
    kinds = [kind for kind in _KINDS if kind is not _code_points]
    for _ in range(count):
        yield " ".join(source.choice(kinds)(source) for _ in range(source.randrange(4, 14)))


def strings(count: int, seed: int) -> Iterator[str]:
    """`count` strings, from nothing at all to a line, with breaks of all kinds in every position."""
    source = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(source.randrange(0, 9)):
            parts.append(source.choice(_KINDS)(source))
            parts.append(source.choice(["", *_BREAKS]))
        text = "".join(parts)
        yield source.choice(_BREAKS) + text if source.random() < 0.2 else text
