"""What the documents say is so: commands run, links lead somewhere, options, files and codes exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from llama_backend.errors import BackendError
from llama_chat.cli.main import COMMANDS
from llama_chat.config import variable_of
from llama_chat.errors import ExitCode
from llama_chat.settings import SETTINGS
from tests.docs import command_tree
from tests.docs.documents import ROOT, Document, Mark, documents
from tests.docs.reader import Reader, live_in
from tests.docs.shell import calls, words

DOCUMENTS = documents()
WITH_COMMANDS = [document for document in DOCUMENTS if any(block.mark is not Mark.SKIPPED for block in document.blocks)]
_README_LINES = 170
_FOREIGN_OPTIONS = {"--build-arg", "--privileged"}
"""Of other programs, written without the program's name. Better write the program's name before the option."""
_VARIABLE = re.compile(r"\bLLAMA_CHAT_[A-Z0-9_]*[A-Z0-9]\b")
_PATH = re.compile(r"[\w.-]+(/[\w.*{},-]+)+/?")
_SOURCES = [ROOT / "tui/llama_chat", ROOT / "backend/llama_backend", ROOT / "convert/llama_convert"]
_BASES = [ROOT, *_SOURCES, ROOT / "backend/llama_backend/engine"]
"""Folders that documents name files in; docs/engine.md names those of the engine, for one."""
_PYTHON_FILES = {path.name for folder in [*_SOURCES, ROOT / "tests"] for path in folder.rglob("*.py")}
_MODULE = re.compile(r"-m (tests[\w.]*)")
_MAKE = re.compile(r"(?:^|[;&|`] *)make ([a-z][a-z-]*)", re.MULTILINE)
_PICTURE_LOADS = re.compile(r"""(?:href|src)\s*=|@import|url\((?!['"]?#)|<script|<foreignObject""")
_REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian\.org")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])
each_with_commands = pytest.mark.parametrize(
    "document", WITH_COMMANDS, ids=[document.name for document in WITH_COMMANDS]
)


@pytest.mark.usefixtures("demo_model")
@each_with_commands
def test_every_command_does_what_it_should(
    document: Document, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("r")
    live_in(home, monkeypatch)
    reader = Reader(document, home)
    try:
        for block in document.blocks:
            reader.read(block)
    finally:
        reader.close()


@each_document
def test_links_lead_somewhere(document: Document) -> None:
    assert list(_broken_links(document)) == []


def _broken_links(document: Document) -> Iterator[str]:
    for target in document.links:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (document.path.parent / path).resolve() if path else document.path
        if not file.exists() or (anchor and anchor not in Document(file).anchors):
            yield target


@each_document
def test_options_and_commands_exist(document: Document) -> None:
    in_blocks = [call for block in document.blocks for call in calls(block.commands_text)]
    in_text = [call for code in document.inline_codes if (call := _call(code))]
    found = {" ".join(call): command_tree.complaint(call) for call in in_blocks + in_text}
    assert {call: complaint for call, complaint in found.items() if complaint} == {}


def _call(code: str) -> list[str] | None:
    """The arguments of a call in the running text, which may begin with the command: `ask -n`."""
    first, *rest = words(code) or [""]
    if first == "llama-chat":
        return rest
    return [first, *rest] if rest and first in COMMANDS else None


@each_document
def test_options_in_the_text_exist(document: Document) -> None:
    known = command_tree.all_options() | _FOREIGN_OPTIONS
    codes = [code for code in document.inline_codes if re.match(r"--?[a-z]", code)]
    names = {name for code in codes for name in re.split(r"[ =]", code)[0].split("/")}
    assert sorted(names - known) == []


@each_document
def test_variables_exist(document: Document) -> None:
    settings = {variable_of(name) for name in SETTINGS}
    source = "".join(path.read_text("utf-8") for place in ("tui", "backend") for path in (ROOT / place).rglob("*.py"))
    known = settings | command_tree.variables() | set(_VARIABLE.findall(source))
    assert sorted(set(_VARIABLE.findall(document.text)) - known) == []


@each_document
def test_files_exist(document: Document) -> None:
    typed = [word for block in document.blocks for word in words(block.commands_text) if _is_ours(word)]
    assert [code for code in document.inline_codes + typed if not _exists(code, document)] == []


def _is_ours(word: str) -> bool:
    """Whether a word of a command names a source or a test; the reader's own files have other names."""
    return word.split("/")[0] in {"tui", "backend", "convert", "tests"}


def _exists(code: str, document: Document) -> bool:
    """Whether what looks like a file of the repository is one; other paths are the reader's own."""
    if re.fullmatch(r"\w+\.py", code):
        return code in _PYTHON_FILES
    if not _PATH.fullmatch(code):
        return True
    first = code.split("/")[0]
    bases = [base for base in (*_BASES, document.path.parent) if first != ".." and (base / first).is_dir()]
    return not bases or any(list(base.glob(code.rstrip("/"))) for base in bases)


@each_document
def test_modules_and_make_targets_exist(document: Document) -> None:
    code = "\n".join([*(block.commands_text for block in document.blocks), *document.inline_codes])
    modules = [ROOT / name.replace(".", "/") for name in _MODULE.findall(code)]
    assert [str(path) for path in modules if not (path.is_dir() or path.with_suffix(".py").exists())] == []
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert sorted(set(_MAKE.findall(code)) - targets) == []


@each_document
def test_no_block_names_a_package_registry(document: Document) -> None:
    assert [block.line for block in document.blocks if _REGISTRIES.search(block.text)] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= _README_LINES


def test_every_error_code_and_exit_code_is_explained() -> None:
    codes = set(Document(ROOT / "docs" / "troubleshooting.md").inline_codes)
    assert sorted({kind.code for kind in _kinds(BackendError)} - codes) == []
    assert sorted({str(int(code)) for code in ExitCode} - codes) == []


def _kinds(base: type[BackendError]) -> Iterator[type[BackendError]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)


def test_the_table_of_settings_has_every_setting() -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    table = text.partition("<!-- settings:begin -->")[2].partition("<!-- settings:end -->")[0]
    named = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert sorted(named) == sorted(SETTINGS)


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").rglob("*.svg")), ids=lambda picture: picture.name)
def test_pictures_load_nothing_from_elsewhere(picture: Path) -> None:
    assert _PICTURE_LOADS.findall(picture.read_text("utf-8")) == []
