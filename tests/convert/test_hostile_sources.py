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
from typing import Any

import numpy as np
import pytest

from llama_convert.checkpoint.meta_folder import read_meta_tensors
from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import ConvertError, CorruptSource, SourceError
from llama_convert.llama_checkpoint import open_checkpoint
from llama_convert.output.write_model import plan_layout
from llama_convert.untrusted import MOST_MEMORY
from llama_convert.vocab.load import load_hf_vocabulary
from tests.hostile.bounded import Reader, reader
from tests.hostile.pickles import BOMBS, read_archive, read_pickle
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder, write_torch_file

MODEL = TinyLlama(layers=1)
Spoil = Callable[[Path], object]
SECONDS = 30.0
"""Far more than any of these takes, on a busy machine too; what they did before took hours."""


@pytest.fixture(scope="module")
def pickles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reader(read_pickle, ConvertError, tmp_path_factory.mktemp("pickles")) as process:
        yield process


def test_a_very_long_name_in_a_pickle_is_not_repeated(pickles: Reader) -> None:
    outcome = pickles.read(BOMBS["a very long name"])
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
    with reader(read_archive, ConvertError, tmp_path) as process:
        outcome = process.read(case)
    outcome.check(MOST_MEMORY // 8, SECONDS)
    assert "model.bin: 'archive/data.pkl' is compressed" in outcome.text


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
    (write_safe_header(shape=[float("inf")]), rf"{SHARD}: is not valid JSON"),
    (write_safe_header(data_offsets=[0, float("inf")]), rf"{SHARD}: is not valid JSON"),
    (write_safe_header(shape=[4.0]), rf"{SHARD}: model.embed_tokens.weight has an impossible shape"),
    (write_safe_header(shape=[True] * 4), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=[-4]), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=[2**62] * 4), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=[1] * 100 + [4]), rf"{SHARD}: .* impossible shape"),
    (write_safe_header(shape=int("9" * 4000)), rf"{SHARD}: the header's entry for model.embed_tokens.weight"),
    (write_raw_header(b'{"a": {"shape": [%s]}}' % (b"9" * 5000)), rf"{SHARD}: is not valid JSON"),
    (write_raw_header(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), rf"{SHARD}: .*nested too deeply"),
    (write_raw_header(b"[" + b"[]," * 3_000_000 + b"[]]"), rf"{SHARD}: holds \d+ values"),
    (write_safe_header(shape=[], data_offsets=[0, 4]), rf"{SHARD}: the tensors do not cover all data of the file"),
    (write(INDEX, '{"weight_map": []}'), rf"{INDEX}: weight_map is \[\]"),
    (write(INDEX, '{"weight_map": "x"}'), rf"{INDEX}: weight_map is 'x'"),
    (write(INDEX, '{"weight_map": {"a": 5}}'), rf"{INDEX}: weight_map is \{{'a': 5\}}"),
    (write(INDEX, '{"weight_map": {"a": "\\u0000"}}'), "weight files are missing"),
    (write("config.json", "[" * 100_000), r"config\.json: .*nested too deeply"),
    (write("config.json", '{"a": ' * 100_000), r"config\.json: .*nested too deeply"),
    (write("config.json", b" " * (9 << 20)), r"config\.json: has 9437184 bytes"),
    (write("config.json", b'{"a": "\xff"}'), r"config\.json: is not valid JSON"),
    (config(architectures=5), r"config\.json: architectures is 5"),
    (config(architectures="x" * 5000), r"config\.json: architectures is 'xxx"),
    (config(architectures=[["x"] * 9999]), r"config\.json: the architecture is \["),
    (config(hidden_size=float("inf")), r"config\.json: is not valid JSON"),
    (config(hidden_size=10**30), r"config\.json: hidden_size is 10{30}, but should be a whole number from 1 to 65536"),
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
    (write("chat_template.jinja", b"\xff"), r"chat_template\.jinja: is not UTF-8"),
    (write("chat_template.json", "[]"), r"chat_template\.json: is not a JSON object"),
    (write("tokenizer_config.json", '{"chat_template": [5]}'), "a chat template needs a name and a text"),
    (write("added_tokens.json", '{"a": 2147483648}'), "token 'a' has the impossible id 2147483648"),
    (write("added_tokens.json", '{"a": 1e300}'), "the added tokens are broken"),
    (write("tokenizer_config.json", '{"added_tokens_decoder": {"%s": {}}}' % ("9" * 5000)), "added tokens are broken"),
    (write("tokenizer.json", '{"added_tokens": [{"id": 0}]}'), "added tokens are broken"),
    (write("tokenizer.json", '{"post_processor": {"type": "TemplateProcessing", "single": 5}}'), "added tokens"),
    (write("tokenizer.model", bytes(17 << 20)), r"tokenizer\.model: has 17825792 bytes"),
    (write("tokenizer.model", b"\x12\x04\xc2\x02\x01x"), r"tokenizer\.model: .*a special token"),
    (write("tokenizer.model", b"\x0a\x08\x0a\x01a\x15\0\0\xc0\x7f"), r"tokenizer\.model: .* score is not a number"),
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


def read_largest(_: bytes, folder: Path) -> object:
    """A source whose every file is as large as its limit, with the most expensive content for it."""
    (folder / "config.json").write_text(json.dumps({**MODEL.config(vocab_size=5), "padding": [[]] * 400_000}))
    vocab = ",".join(f'"{token:x}":{token}' for token in range(1 << 20))
    merges = ",".join(['["a","b"]'] * 450_000)
    text = f'{{"x": "{"x" * (34 << 20)} \U0001f642"}}'
    model = f'{{"type":"BPE","byte_fallback":true,"vocab":{{{vocab}}},"merges":[{merges}]}}'
    (folder / "tokenizer.json").write_text(f'{{"model":{model},"padding":{text}}}')
    added = ",".join(f'"{token}":{{"content":"t{token}"}}' for token in range(100_000))
    (folder / "tokenizer_config.json").write_text(f'{{"added_tokens_decoder":{{{added}}}}}')
    (folder / "added_tokens.json").write_text(json.dumps({f"t{token}": token for token in range(300_000)}))
    (folder / "chat_template.jinja").write_text("x" * 8_000_000)
    head = {f"{name:05}.{'x' * 400}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for name in range(60_000)}
    raw = json.dumps(head | {"model.embed_tokens.weight": EMBEDDING}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + EMBEDDED)
    return len(load_hf_vocabulary(folder, {})[0].metadata()), open_checkpoint(folder)


EMBEDDED = 2 * (1 << 20) * MODEL.width
EMBEDDING = {"dtype": "F16", "shape": [1 << 20, MODEL.width], "data_offsets": [0, EMBEDDED]}


def test_the_largest_source_stays_within_the_documented_memory(tmp_path: Path) -> None:
    with reader(read_largest, ConvertError, tmp_path) as process:
        outcome = process.read(b"")
    outcome.check(MOST_MEMORY, 4 * SECONDS)
    assert "weights do not hold" in outcome.text


SHARES: list[dict[str, np.ndarray[Any, Any]]] = [
    {"tok_embeddings.weight": np.ones((2, 4), np.float16)},
    {"tok_embeddings.weight": np.ones(4, np.float16)},
    {"tok_embeddings.weight": np.ones((2, 4, 1), np.float16)},
    {"tok_embeddings.weight": np.ones((2, 4), np.float32)},
    {"tok_embeddings.weight": np.ones((3, 4), np.float16)},
]


@pytest.mark.parametrize("second", range(1, len(SHARES)))
@pytest.mark.parametrize("turned", [False, True])
def test_shares_that_cannot_stand_side_by_side_are_refused(tmp_path: Path, second: int, turned: bool) -> None:
    for index, share in enumerate([SHARES[second], SHARES[0]] if turned else [SHARES[0], SHARES[second]]):
        write_torch_file(tmp_path / f"consolidated.{index:02d}.pth", share)
    if turned and second == 1:
        return  # a vector is taken to be repeated in each file, and its shape is compared with the model's later
    with pytest.raises(CorruptSource, match=r"the share of tok_embeddings\.weight does not fit"):
        read_meta_tensors(tmp_path)


def test_a_storage_beyond_the_end_of_its_file_is_refused(tmp_path: Path) -> None:
    """The zip's list of files places it behind a header in the comment, which is the last thing in the file."""
    path = tmp_path / "model.bin"
    write_torch_file(path, {"a": np.ones((4, 4), np.float16)}, transposed=frozenset("a"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x03\x04" + bytes(26)
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02", 0, raw.rindex(b"archive/data/0"))
    struct.pack_into("<I", raw, entry + 42, len(raw) - 30)
    path.write_bytes(raw)
    with pytest.raises(CorruptSource, match="the storage '0' reaches past the end of the file"):
        read_torch_file(path)
