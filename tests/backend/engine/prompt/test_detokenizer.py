"""Text piece by piece: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from random import Random

import pytest

from llama_backend.engine.prompt.detokenizer import Detokenizer

TEXTS = [
    "plain ASCII, and a tail",
    "Äpfel, naïve façade – “quoted” … ½",
    "漢字かな交じり文、中文字符。한국어",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 tone, 🇩🇪",
    "mixed: a漢👨‍💻b\u0301\u200d\ufe0f\n\t end",
    "\ufdd0 noncharacters \ufffd and \U0010ffff",
]


def split(data: bytes, random: Random, most: int = 4) -> list[bytes]:
    pieces = []
    while data:
        size = random.randint(1, most)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def run(pieces: list[bytes], stops: list[str] | None = None, strip_space: bool = False) -> tuple[list[str], bool]:
    """What each token brings, then what the end brings; and whether a stop string ended it."""
    detokenizer = Detokenizer(pieces.__getitem__, stops, strip_space)
    out = []
    for token in range(len(pieces)):
        out.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    out.append(detokenizer.flush())
    assert "".join(out) == detokenizer.text
    return out, detokenizer.stopped


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("seed", range(10))
def test_however_bytes_are_cut_no_half_character_comes_out(text: str, seed: int) -> None:
    random = Random(seed)
    out, _ = run(split(text.encode(), random, most=random.randint(1, 6)))
    assert "".join(out) == text
    assert all(part in text for part in out)
    assert [len(part) for part in out[:-1]] != [], "and it comes as soon as it is whole"
    assert out[-1] == ""


def test_a_character_comes_with_its_last_byte() -> None:
    assert run([b"\xf0", b"\x9f", b"\x98", b"\x80", b"!"])[0] == ["", "", "", "😀", "!", ""]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"ab\xf0\x9f"], "ab\ufffd"),
        ([b"\xff", b"a"], "\ufffda"),
        ([b"\xe6\xbc", b"x"], "\ufffdx"),
        ([b"\xed\xa0\x80"], "\ufffd\ufffd\ufffd"),
    ],
)
def test_broken_bytes_become_replacement_characters(pieces: list[bytes], text: str) -> None:
    assert "".join(run(pieces)[0]) == text
    assert b"".join(pieces).decode("utf-8", "replace") == text


def test_tokens_without_bytes_bring_nothing() -> None:
    assert run([b"a", b"", b"b"])[0] == ["a", "", "b", ""]


@pytest.mark.parametrize(
    ("pieces", "strip", "text"),
    [
        ([b" Hello", b" you"], True, "Hello you"),
        ([b"", b" Hello"], True, "Hello"),
        ([b"  Hello"], True, " Hello"),
        ([b"Hello", b" you"], True, "Hello you"),
        ([b" ", b" x"], True, " x"),
        ([b" Hello"], False, " Hello"),
    ],
)
def test_one_leading_space_is_left_out_where_the_model_puts_one(pieces: list[bytes], strip: bool, text: str) -> None:
    assert "".join(run(pieces, strip_space=strip)[0]) == text


STOPS = [
    ("Hello world, bye", ["world"], "Hello "),
    ("Hello world, bye", ["bye", "world"], "Hello "),
    ("Hello world, bye", ["worlds"], "Hello world, bye"),
    ("one two three", ["two three four", "three"], "one two "),
    ("aaab", ["aab"], "a"),
    ("abababc", ["ababc"], "ab"),
    ("xabcd", ["abcd", "bc"], "xa"),
    ("xabcd", ["abc", "bc"], "x"),
    ("a\n\nb", ["\n\n"], "a"),
    ("I say 👩‍👩‍👧 stop", ["👩‍👩‍👧"], "I say "),
    ("I say 👩‍👩", ["👩‍👩‍👧"], "I say 👩‍👩"),
    ("stop", ["stop"], ""),
    ("a</s", ["</s>"], "a</s"),
]


@pytest.mark.parametrize(("text", "stops", "shown"), STOPS)
@pytest.mark.parametrize("seed", range(12))
def test_a_stop_string_never_shows_wherever_tokens_are_cut(text: str, stops: list[str], shown: str, seed: int) -> None:
    random = Random(seed)
    pieces = split(text.encode(), random, most=random.choice([1, 2, 4, 30]))
    out, stopped = run(pieces, stops)
    assert "".join(out) == shown
    assert stopped == (shown != text)


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none() -> None:
    assert run([b"a", b"S", b"T", b"x", b"S"], ["STOP"])[0] == ["a", "", "", "STx", "", "S"]


def test_what_follows_a_stop_string_is_dropped() -> None:
    assert run([b"ab STOP cd"], ["STOP"]) == (["ab ", ""], True)


def test_a_stop_string_may_be_completed_by_a_broken_end() -> None:
    assert run([b"ab", b"\xf0\x9f"], ["b\ufffd"]) == (["a", "", ""], True)


def test_random_stop_strings_cut_the_same_text_however_tokens_are_cut() -> None:
    random = Random(7)
    for _ in range(300):
        text = "".join(random.choices("ab ", k=30))
        stops = ["".join(random.choices("ab ", k=random.randint(1, 5))) for _ in range(random.randint(1, 3))]
        whole = "".join(run([char.encode() for char in text], stops)[0])
        cut = "".join(run(split(text.encode(), random, most=8), stops)[0])
        assert cut == whole
        assert not any(stop in whole for stop in stops)
