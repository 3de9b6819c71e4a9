"""The tests of documents notice what is wrong in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import command_tree
from tests.docs.documents import ROOT, Block, Document, Mark
from tests.docs.reader import Reader, live_in
from tests.docs.shell import calls, commands


@pytest.mark.parametrize(
    ("first", "mark"),
    [
        ("llama-chat models", Mark.NONE),
        ("# Lists what is installed.", Mark.NONE),
        ("# Needs a GPU.", Mark.SKIPPED),
        ("# Takes minutes.", Mark.SKIPPED),
        ("# Opens the chat.", Mark.CHAT),
        ("# Runs until you press Ctrl+C.", Mark.SERVER),
        ("# 需要集群。", Mark.SKIPPED),
        ("# 打开聊天。", Mark.CHAT),
        ("# 一直运行，直到按下 Ctrl+C。", Mark.SERVER),
    ],
)
def test_the_first_comment_marks_a_block(first: str, mark: Mark) -> None:
    assert Block("sh", f"{first}\nllama-chat models\n", 1).mark is mark


def test_commands_of_several_lines_are_whole() -> None:
    text = "# a comment\na 'b\nc' | \\\n  d    # exit code 3\n\ncat > f <<'END'\nx\nEND\nfor i in 1; do\n  e\ndone\n"
    found = list(commands(text))
    assert [command.text.split("\n")[0] for command in found] == ["a 'b", "cat > f <<'END'", "for i in 1; do"]
    assert [command.exit_code for command in found] == [3, 0, 0]
    assert [command.line for command in found] == [1, 5, 8]


def test_only_what_is_typed_in_a_transcript_is_run() -> None:
    assert Block("console", "$ echo a \\\n> b\na b\n$ true\n", 1).commands_text == "echo a \\\nb\ntrue\n"


def test_calls_are_found_wherever_a_command_can_stand() -> None:
    text = (
        "A=1 llama-chat ask -n 'a b' | llama-chat\n"
        "kubectl -n llama-chat exec deploy/llama-chat -- llama-chat status   # llama-chat stop\n"
        'id="$(llama-chat history list --json)"; cd llama-chat\n'
    )
    assert list(calls(text)) == [["ask", "-n", "a b"], [], ["status"], ["history", "list", "--json"]]


@pytest.mark.parametrize("call", ["ask --nope", "nope", "history nope", "serve --host 0 --nope", "--nope", "cache -x"])
def test_a_call_that_there_is_not_is_noticed(call: str) -> None:
    assert command_tree.complaint(call.split())


@pytest.mark.parametrize("call", ["", "ask -n hi", "-c", "--version", "history list -n 3", "serve --gpu-layers -1"])
def test_a_call_that_there_is_is_right(call: str) -> None:
    assert command_tree.complaint(call.split()) is None


@pytest.mark.parametrize("line", ["false", "true    # exit code 1", "llama-chat paths --nope", "cd a && cat b"])
def test_a_command_that_ends_otherwise_fails(
    line: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_in(tmp_path_factory.mktemp("r"), monkeypatch)
    reader = Reader(Document(ROOT / "README.md"), tmp_path)
    reader.read(Block("sh", "mkdir a; x=1\ncd a && pwd > where\n", 1))
    reader.read(Block("sh", "test $x = 1 && cat where && false    # exit code 1\n", 1))
    with pytest.raises(pytest.fail.Exception, match=r"README\.md:7"):
        reader.read(Block("sh", line, 7))


def test_anchors_are_those_of_headings(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One, `two` & three\n## Again\n## Again\n## 排错 指南\n")
    assert Document(tmp_path / "a.md").anchors == {"one-two--three", "again", "again-1", "排错-指南"}
