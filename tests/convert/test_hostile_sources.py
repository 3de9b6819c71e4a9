"""Files that were made to do harm are refused at once, with the file and the reason, in little memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import ConvertError, CorruptSource, SourceError
from llama_convert.foreign import MOST_MEMORY
from llama_convert.source import open_checkpoint
from llama_convert.vocab.load import load_hf_vocabulary
from llama_convert.write_model import plan_layout
from tests.convert.layouts import TinyLlama, random_weights, write_hf_folder, write_torch_zip
from tests.hostile.bounded import Reader, reader

MODEL = TinyLlama(layers=1)
Spoil = Callable[[Path], object]
SECONDS = 30.0
"""Far more than any of these takes, on a busy machine too; what they did before took hours."""


def read_pickle(case: bytes, folder: Path) -> object:
    write_torch_zip(folder / "model.bin", case, {})
    return read_torch_file(folder / "model.bin")


def read_zip(case: bytes, folder: Path) -> object:
    (folder / "model.bin").write_bytes(case)
    return read_torch_file(folder / "model.bin")


@pytest.fixture(scope="module")
def pickles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reader(read_pickle, ConvertError, tmp_path_factory.mktemp("pickles")) as process:
        yield process


NESTED_KEY = b"\x80\x02})" + b"2\x86" * 40 + b"Nu."
"""A dictionary whose key is a pair of a pair of …: hashing it takes 2**40 steps."""
SHARED_KEY = b"\x80\x02})" + b"q\x00h\x00\x86" * 40 + b"Ns."
"""The same without DUP: from the memo, as PyTorch shares values too."""
BOMBS = {
    "a key that takes for ever to hash": NESTED_KEY,
    "a shared key that takes for ever to hash": SHARED_KEY,
    "a place in the memo beyond all memory": b"\x80\x02}r" + struct.pack("<I", 1 << 28) + b".",
    "the same in digits": b"\x80\x02}p268435455\n.",
    "millions of empty dictionaries": b"\x80\x02" + b"}" * 8_000_000 + b".",
    "millions of tuples in tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "numbers that collide as keys": b"\x80\x02}("
    + b"".join(b"\x8a\x0c" + (index * (2**61 - 1)).to_bytes(12, "little") + b"N" for index in range(100_000))
    + b"u.",
    "a table of a table of a table": b"\x80\x02" + b"}X\x01\0\0\0a" * 300_000 + b"N" + b"s" * 300_000 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_is_a_bomb_is_read_in_little_time_and_memory(pickles: Reader, name: str) -> None:
    pickles.read(BOMBS[name]).check(MOST_MEMORY // 4, SECONDS)


def test_a_very_long_name_in_a_pickle_is_not_repeated(pickles: Reader) -> None:
    outcome = pickles.read(b"\x80\x02cos\n" + b"\x1b[31m" * 1_000_000 + b"\n.")
    outcome.check(MOST_MEMORY // 4, SECONDS)
    assert "it asks for 'os." in outcome.text
    assert len(outcome.text) < 400


def deflated(path: Path) -> bytes:
    """A zip of a pickle that unpacks to a hundred times its size, and claims another size in its list of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"}" * 400_000_000 + b".")
    raw = path.read_bytes()
    at = raw.rindex(b"PK\x01\x02")
    return raw[: at + 24] + struct.pack("<I", 1000) + raw[at + 28 :]


def test_a_compressed_pickle_is_not_unpacked(tmp_path: Path) -> None:
    case = deflated(tmp_path / "bomb.zip")
    with reader(read_zip, ConvertError, tmp_path) as process:
        outcome = process.read(case)
    outcome.check(MOST_MEMORY // 8, SECONDS)
    assert "model.bin: 'archive/data.pkl' has 1000 bytes, compressed or not, which is no table" in outcome.text


def test_a_zip_with_a_huge_list_of_files_is_not_read(tmp_path: Path) -> None:
    size = 600 << 20
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    with reader(read_sparse_zip, ConvertError, tmp_path) as process:
        outcome = process.read(struct.pack("<Q", size) + end)
    outcome.check(MOST_MEMORY // 8, SECONDS)
    assert "a piece of more than" in outcome.text


def read_sparse_zip(case: bytes, folder: Path) -> object:
    with (folder / "model.bin").open("wb") as file:
        file.seek(*struct.unpack_from("<Q", case))
        file.write(case[8:])
    return read_torch_file(folder / "model.bin")


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "hf", MODEL, random_weights(MODEL), shards=2)
    shutil.copy(spm_model, made)
    return made


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def make_folder(path: Path) -> None:
    path.mkdir()


KINDS = {"named pipe": make_pipe, "device": make_device_link, "socket": make_socket, "folder": make_folder}
FILES = [
    "config.json",
    "model.safetensors.index.json",
    "model-00002-of-00002.safetensors",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "pytorch_model.bin",
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_regular_file_never_holds_up(
    folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by name, or not taken for one of the source's files at all."""
    monkeypatch.chdir(folder)
    if name == "pytorch_model.bin":
        for path in folder.glob("model*"):
            path.unlink()
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    with suppress(ConvertError):
        open_checkpoint(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_regular_file_are_refused(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors.index.json").unlink()
    KINDS[kind](folder / "model-00003.safetensors")
    with pytest.raises(CorruptSource, match=rf"model-00003\.safetensors: is a {kind}, not a regular file"):
        open_checkpoint(folder)


def write_safe_header(**entry: object) -> Spoil:
    """A safetensors file with one tensor, whose entry in the header is changed."""
    whole = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **entry}
    return write_raw_header(json.dumps({"model.embed_tokens.weight": whole}).encode())


def write_raw_header(raw: bytes) -> Spoil:
    def write(folder: Path) -> None:
        (folder / "model.safetensors.index.json").unlink()
        (folder / SHARD).write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(16))

    return write


def write(name: str, text: str | bytes) -> Spoil:
    raw = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / name).write_bytes(raw)


def config(**changes: object) -> Spoil:
    return write("config.json", json.dumps(MODEL.config(**changes)))


def tokenizer(**changes: object) -> Spoil:
    """A `tokenizer.json` of byte-level BPE in place of the SentencePiece model."""
    whole = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": GPT2, **changes}

    def change(folder: Path) -> None:
        (folder / "tokenizer.model").unlink()
        (folder / "tokenizer.json").write_text(json.dumps(whole))

    return change


def bpe(**changes: object) -> Spoil:
    return tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], **changes})


SENTENCES = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": True}
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
SHARD = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
SENSELESS: list[tuple[Spoil, str]] = [
    (write_safe_header(shape=[float("inf")]), rf"{SHARD}: no valid JSON"),
    (write_safe_header(data_offsets=[0, float("inf")]), rf"{SHARD}: no valid JSON"),
    (write_safe_header(shape=[4.0]), rf"{SHARD}: model.embed_tokens.weight has the impossible shape"),
    (write_safe_header(shape=[True] * 4), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=[-4]), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=[2**62] * 4), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=[1] * 100 + [4]), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=int("9" * 4000)), rf"{SHARD}: the header's entry for model.embed_tokens.weight"),
    (write_raw_header(b'{"a": {"shape": [%s]}}' % (b"9" * 5000)), rf"{SHARD}: no valid JSON"),
    (write_raw_header(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), rf"{SHARD}: .*nested too deeply"),
    (write_raw_header(b"[" + b"[]," * 3_000_000 + b"[]]"), rf"{SHARD}: holds \d+ values"),
    (write_safe_header(shape=[], data_offsets=[0, 4]), rf"{SHARD}: the data do not fill the file"),
    (write(INDEX, '{"weight_map": []}'), rf"{INDEX}: weight_map is \[\]"),
    (write(INDEX, '{"weight_map": "x"}'), rf"{INDEX}: weight_map is 'x'"),
    (write(INDEX, '{"weight_map": {"a": 5}}'), rf"{INDEX}: weight_map is \{{'a': 5\}}"),
    (write(INDEX, '{"weight_map": {"a": "\\u0000"}}'), "weight files are missing"),
    (write("config.json", "[" * 100_000), r"config\.json: .*nested too deeply"),
    (write("config.json", '{"a": ' * 100_000), r"config\.json: .*nested too deeply"),
    (write("config.json", b" " * (9 << 20)), r"config\.json: has 9437184 bytes"),
    (write("config.json", b'{"a": "\xff"}'), r"config\.json: no valid JSON"),
    (config(architectures=5), r"config\.json: architectures is 5"),
    (config(architectures="x" * 5000), r"config\.json: architectures is 'xxx"),
    (config(architectures=[["x"] * 9999]), r"config\.json: the architecture is \["),
    (config(hidden_size=float("inf")), r"config\.json: no valid JSON"),
    (config(hidden_size=10**30), r"config\.json: hidden_size is 10{30}, and should be a whole number from 1 to 65536"),
    (config(hidden_size="256"), r"config\.json: hidden_size is '256'"),
    (config(hidden_size=True), r"config\.json: hidden_size is True"),
    (config(num_hidden_layers=10**9), r"config\.json: num_hidden_layers is 1000000000"),
    (config(num_attention_heads=-8), r"config\.json: num_attention_heads is -8"),
    (config(max_position_embeddings=2**40), r"config\.json: max_position_embeddings is"),
    (config(rms_norm_eps=1e300), r"config\.json: rms_norm_eps is 1e\+300"),
    (config(rope_theta=-1), r"config\.json: rope_theta is -1"),
    (config(rope_theta=[]), r"config\.json: rope_theta is \[\]"),
    (config(rope_scaling={"type": "linear", "factor": "x"}), r"config\.json: rope_scaling\.factor is 'x'"),
    (config(rope_scaling={"type": "linear", "factor": 0}), r"config\.json: rope_scaling\.factor is 0"),
    (config(rope_scaling={"type": ["x"] * 99}), r"config\.json: rope scaling of type"),
    (config(rope_scaling={"type": "llama3", "high_freq_factor": 1}), r"config\.json: rope_scaling\.low_freq_factor"),
    (config(rope_scaling={"type": "llama3", "factor": 0}), r"config\.json: rope_scaling\.factor is 0"),
    (write("generation_config.json", '{"top_k": 1e30}'), r"generation_config\.json: top_k makes no sense: 1e\+30"),
    (write("generation_config.json", '{"temperature": %s}' % ("9" * 4000)), "temperature makes no sense: 999"),
    (write("chat_template.jinja", b"\xff"), r"chat_template\.jinja: is no UTF-8"),
    (write("chat_template.json", "[]"), r"chat_template\.json: no JSON object"),
    (write("tokenizer_config.json", '{"chat_template": [5]}'), "a chat template needs a name and a text"),
    (write("added_tokens.json", '{"a": 2147483648}'), "token 'a' has the impossible id 2147483648"),
    (write("added_tokens.json", '{"a": 1e300}'), "the added tokens are broken"),
    (write("tokenizer_config.json", '{"added_tokens_decoder": {"%s": {}}}' % ("9" * 5000)), "added tokens are broken"),
    (write("tokenizer.json", '{"added_tokens": [{"id": 0}]}'), "added tokens are broken"),
    (write("tokenizer.json", '{"post_processor": {"type": "TemplateProcessing", "single": 5}}'), "added tokens"),
    (write("tokenizer.model", bytes(17 << 20)), r"tokenizer\.model: has 17825792 bytes"),
    (write("tokenizer.model", b"\x12\x04\xc2\x02\x01x"), r"tokenizer\.model: .*a special token"),
    (write("tokenizer.model", b"\x0a\x08\x0a\x01a\x15\0\0\xc0\x7f"), r"tokenizer\.model: .* score is no number"),
    (write("tokenizer.model", b"\x0a\0" * 1_100_000), r"tokenizer\.model: .*more than 1048576 pieces"),
    (tokenizer(model=[]), r"tokenizer\.json: model is \[\]"),
    (bpe(type=["x"] * 99), r"tokenizer\.json: the tokenizer is of type"),
    (bpe(vocab=[]), r"tokenizer\.json: model\.vocab is \[\]"),
    (bpe(vocab={"a": "b"}), r"tokenizer\.json: a part is missing or broken"),
    (bpe(vocab={"a": 2**31}), r"tokenizer\.json: .* impossible id 2147483648"),
    (bpe(merges=["a b c"]), r"tokenizer\.json: a part is missing or broken"),
    (bpe(merges=[{}]), r"tokenizer\.json: a part is missing or broken"),
    (bpe(merges=None), r"tokenizer\.json: a part is missing or broken"),
    (bpe(byte_fallback=True, unk_token=["x"]), r"tokenizer\.json: a part is missing or broken"),
    (tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}}), r"tokenizer\.json: the pre-tokenizer"),
    (tokenizer(pre_tokenizer=[]), r"tokenizer\.json: the pre-tokenizer"),
]


@pytest.mark.parametrize(("spoil", "message"), SENSELESS)
def test_senseless_sources_are_refused_with_the_file_and_the_field(folder: Path, spoil: Spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(SourceError, match=message) as found:
        plan_layout(open_checkpoint(folder))
    assert len(str(found.value)) <= 1001


@pytest.mark.parametrize(("part", "inner"), [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")])
def test_however_deep_the_parts_of_a_tokenizer_are_nested(folder: Path, part: str, inner: str) -> None:
    """The reader of JSON follows as deep as Python does, and what goes through the parts afterwards less deep."""
    (folder / "tokenizer.model").unlink()
    model = json.dumps(SENTENCES | {"byte_fallback": part == "normalizer"})
    for depth in (*range(300, 500), 5000):
        nested = f'{{"type": "Sequence", "{inner}": [' * depth + "]}" * depth
        (folder / "tokenizer.json").write_text(f'{{"model": {model}, "{part}": {nested}}}')
        with suppress(ConvertError):
            load_hf_vocabulary(folder, {})
