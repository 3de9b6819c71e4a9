"""States on disk: what was written comes back, and nothing else does."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from llama_backend.engine.kv.state_files import DamagedState, StateFolder, StoredAnswer
from llama_backend.host.kv_state_folder import clear_states

STAMP, OTHER = "0" * 32, "1" * 32
TOKENS = bytes(range(40))
DATA = bytes(Random(1).randbytes(5000))
ANSWERS = [StoredAnswer([1, 2, 3], True)]


def folder_of(root: Path, stamp: str = STAMP, limit: int = 1 << 20) -> StateFolder:
    return StateFolder(root / "states", stamp, limit)


def test_what_was_written_comes_back_in_another_process(tmp_path: Path) -> None:
    path = folder_of(tmp_path).write(TOKENS, "", ANSWERS, memoryview(DATA))
    (found,) = folder_of(tmp_path).scan()
    assert (found.path, found.tokens, found.answers) == (path, TOKENS, ANSWERS)
    assert folder_of(tmp_path).read(path) == DATA


def test_only_this_user_may_read_it(tmp_path: Path) -> None:
    path = folder_of(tmp_path).write(TOKENS, "", ANSWERS, DATA)
    modes = [each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_states_of_another_stamp_are_not_seen_but_count(tmp_path: Path) -> None:
    folder_of(tmp_path, OTHER).write(TOKENS, "", [], DATA)
    folder = folder_of(tmp_path)
    assert folder.scan() == []
    assert folder.used > len(DATA)


def test_the_least_recently_used_go_first_over_the_limit(tmp_path: Path) -> None:
    folder, paths = folder_of(tmp_path, limit=12_000), []
    for number in range(3):
        paths.append(folder.write(bytes([number]) * 8, "", [], DATA))
        os.utime(paths[-1], (number, number))
    folder.read(paths[0])
    assert folder.shrink() == {paths[1]}
    assert [path.exists() for path in paths] == [True, False, True]


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, limit=0)
    folder.write(TOKENS, "", [], DATA)
    mine = tmp_path / "states" / "pictures" / "a.kvstate"
    mine.parent.mkdir()
    mine.write_bytes(DATA)
    folder.shrink()
    clear_states(tmp_path / "states")
    assert mine.exists()
    assert folder.used == 0


def test_half_written_files_go_once_they_are_old(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = folder.write(TOKENS, "", [], DATA)
    new, old = path.with_suffix(".1.part"), path.with_suffix(".2.part")
    for part in (new, old):
        shutil.copy(path, part)
    os.utime(old, (0, 0))
    folder.scan()
    assert new.exists()
    assert not old.exists()


def test_a_clock_that_is_put_back_or_on_leaves_no_half_written_files_and_loses_no_states(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = folder.write(TOKENS, "", [], DATA)
    part = path.with_suffix(".1.part")
    for moment in (0, 4_000_000_000):
        shutil.copy(path, part)
        os.utime(path, (moment, moment))
        os.utime(part, (moment, moment))
        assert len(folder.scan()) == 1
        assert not part.exists()
    assert folder.read(path) == DATA


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_all_folders_that_are_missing_are_made_for_this_user_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = StateFolder(tmp_path / "a" / "b" / "states", STAMP, 1 << 20)
        path = folder.write(TOKENS, "", [], DATA)
    finally:
        os.umask(before)
    assert all(each.stat().st_mode & 0o077 == 0 for each in (path, *path.parents[:4]))


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = folder.write(TOKENS, "", [], DATA)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    makes: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(elsewhere),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.mkdir(),
    ]
    for make in makes:
        make()
        with pytest.raises(OSError, match=path.name):
            folder.read(path)
        assert folder.scan() == []
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    assert elsewhere.exists()


def test_states_below_a_link_are_neither_read_nor_removed(tmp_path: Path) -> None:
    path = StateFolder(tmp_path / "elsewhere", STAMP, 1 << 20).write(TOKENS, "", [], DATA)
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / OTHER).symlink_to(path.parent)
    folder = folder_of(tmp_path, limit=0)
    assert folder.used == 0
    assert folder.shrink() == set()
    clear_states(tmp_path / "states")
    assert path.exists()


@pytest.mark.parametrize(
    ("tokens", "answers"),
    [(b"", []), (b"abc", []), (bytes(4) + b"\xff\xff\xff\xff", []), (bytes([100, 0, 0, 0]), []), (bytes(4), [-1])],
)
def test_tokens_that_the_model_does_not_have_are_damage(tmp_path: Path, tokens: bytes, answers: list[int]) -> None:
    folder = StateFolder(tmp_path / "states", STAMP, 1 << 20, n_vocab=100)
    path = folder.write(tokens, "", [StoredAnswer(answers, False)], DATA)
    with pytest.raises(DamagedState):
        folder.read(path)
    assert folder.scan() == []


def test_a_limit_on_the_size_of_files_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource, sys\n"
        "from llama_backend.engine.kv.state_files import StateFolder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: StateFolder(pathlib.Path(sys.argv[1]), '0' * 32, 1 << 20).write(bytes(8), '', [], bytes(5000))\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_clearing_leaves_nothing(tmp_path: Path) -> None:
    for stamp in (STAMP, OTHER):
        folder_of(tmp_path, stamp).write(TOKENS, "", [], DATA)
    assert clear_states(tmp_path / "states") > 2 * len(DATA)
    assert list((tmp_path / "states").iterdir()) == []
    assert clear_states(tmp_path / "nowhere") == 0


def test_a_folder_that_cannot_be_had_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "states").write_text("in the way")
    folder = folder_of(tmp_path)
    assert folder.scan() == []
    with pytest.raises(OSError, match="states"):
        folder.write(TOKENS, "", [], DATA)


@pytest.mark.parametrize("seed", range(200))
def test_no_damage_gets_through(tmp_path: Path, seed: int) -> None:
    """Flipped bits, cuts, additions, stretches of zeros: never other data, and the scan removes what it can see."""
    random, folder = Random(seed), folder_of(tmp_path)
    path = folder.write(TOKENS, "", ANSWERS, DATA)
    damaged = _damage(random, path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(DamagedState):
        folder.read(path)
    for found in folder.scan():
        assert (found.tokens, found.answers) == (TOKENS, ANSWERS)


def _damage(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data))
    kinds: list[Callable[[], bytes]] = [
        lambda: data[:start],
        lambda: data + random.randbytes(random.randint(1, 50)),
        lambda: data[:start] + bytes([data[start] ^ (1 << random.randrange(8))]) + data[start + 1 :],
        lambda: data[:start] + bytes(min(500, len(data) - start)) + data[start + 500 :],
        lambda: random.randbytes(len(data)),
        lambda: b"",
    ]
    damaged = random.choice(kinds)()
    return damaged if damaged != data else data[:-1]
