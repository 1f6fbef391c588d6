"""`cleanup="background"`: the commit does not wait for the removal of what it has displaced.

Where the removal has to be caught while it runs, strace(1) holds its first call back for longer
than any test runs: what is seen then does not depend on who is faster.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import atomik
import pytest
from support import kernel, slot_names
from support.filesystems import Filesystem, leftovers
from support.processes import run_program
from support.trees import tree

# A displaced folder is in a slot after an exchange, which libfuse 2 does not hand on.
with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)
each_opening = pytest.mark.parametrize(
    "opening", [atomik.folder, atomik.path], ids=["folder", "path"]
)

_SECONDS: Final = 60


def _make(destination: Path, files: int = 300) -> None:
    for number in range(files):
        folder = destination / f"{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_text("old")


def _replace(destination: Path, opening: Any = atomik.folder, **options: Any) -> None:
    options = {"overwrite": True, "cleanup": "background", "durability": "none", **options}
    with opening(destination, **options) as staging:
        staging.mkdir(exist_ok=True)
        (staging / "new").write_text("new")


def _wait_until_gone(folder: Path, between: Callable[[], None] = lambda: None) -> None:
    """Looks again until nothing of the library's is left."""
    end = time.monotonic() + _SECONDS
    while leftovers(folder):
        assert time.monotonic() < end, leftovers(folder)
        time.sleep(0.001)
        between()


_HELD_BACK: Final = """
import atomik, os, sys
print(os.getpid(), flush=True)
with atomik.folder(sys.argv[1], overwrite=True, cleanup=sys.argv[2], durability="none") as staging:
    with open(os.path.join(staging, "new"), "w") as file:
        file.write("new")
print("committed", flush=True)
sys.stdin.read()
"""


@contextmanager
def _held_back(destination: Path, cleanup: str) -> Generator[IO[str], None, None]:
    """Runs a program that commits and waits, with the removal of what it displaces held back."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    displaced = slot_names.porch(destination) / destination.name
    hold = f"inject=unlinkat:delay_enter={1000 * _SECONDS}ms"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=unlinkat", "-e", hold]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [*command, "-P", displaced, sys.executable, "-c", _HELD_BACK, destination, cleanup],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        process = os.pidfd_open(int(program.stdout.readline()))
        try:
            yield program.stdout
        finally:
            # In this order: the end of strace alone would let the removal go on.
            signal.pidfd_send_signal(process, signal.SIGKILL)
            program.kill()
            # It holds the lock of its slot until it has ended.
            assert select.select([process], [], [], _SECONDS)[0]
            os.close(process)


def _flat(fs: Filesystem) -> Path:
    """Makes a folder without others in it: strace's -P knows the files of one folder only."""
    destination = fs.folder("site")
    for number in range(20):
        (destination / f"{number}").write_text("old")
    return destination


@with_exchange
def test_the_commit_returns_while_the_displaced_version_is_still_there(fs: Filesystem) -> None:
    destination = _flat(fs)
    old = tree(destination)
    with _held_back(destination, "background") as said:
        assert said.readline() == "committed\n"
        assert tree(destination).keys() == {"new"}
        assert tree(slot_names.porch(destination) / "site") == old
    # The end of the process has left an orphan, and the next writer removes it.
    assert tree(slot_names.porch(destination) / "site") == old
    _replace(destination, cleanup="inline")
    assert os.listdir(fs.here) == ["site"]


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_commit_that_removes_inline_is_held_back(fs: Filesystem) -> None:
    # Otherwise the test above would show nothing.
    destination = _flat(fs)
    with _held_back(destination, "inline") as said:
        end = time.monotonic() + _SECONDS
        while not (destination / "new").exists():
            assert time.monotonic() < end
            time.sleep(0.001)
        assert select.select([said], [], [], 1) == ([], [], [])
    _replace(destination, cleanup="inline")
    assert os.listdir(fs.here) == ["site"]


@with_exchange
@each_opening
def test_what_was_displaced_is_gone_before_long(fs: Filesystem, opening: Any) -> None:
    _make(fs.here / "site", 2000)
    _replace(fs.here / "site", opening)
    assert tree(fs.here / "site").keys() == {"new"}
    _wait_until_gone(fs.here)
    assert os.listdir(fs.here) == ["site"]


@with_exchange
@pytest.mark.parametrize("durability", ["full", "ordered", "none"])
def test_many_commits_in_a_row_leave_nothing_in_the_end(fs: Filesystem, durability: str) -> None:
    _make(fs.here / "site", 500)
    options: Any = {"update": True, "cleanup": "background", "durability": durability}
    for number in range(20):
        with atomik.folder(fs.here / "site", **options) as staging:
            (staging / f"new {number}").touch()
    assert len(os.listdir(fs.here / "site")) == 10 + 20
    _wait_until_gone(fs.here)
    assert os.listdir(fs.here) == ["site"]


@with_exchange
def test_a_version_that_is_read_stays_until_its_reader_has_ended(fs: Filesystem) -> None:
    _make(fs.here / "site", 100)
    old = tree(fs.here / "site")
    with atomik.snapshot(fs.here / "site") as version:
        for _ in range(3):
            _replace(fs.here / "site")
        assert tree(version) == old
    # The last commit's own may still be on its way.
    _wait_until_gone(fs.here)
    assert os.listdir(fs.here) == ["site"]


@with_exchange
def test_a_backup_is_no_displaced_version(fs: Filesystem) -> None:
    _make(fs.here / "site", 100)
    old = tree(fs.here / "site")
    _make(fs.here / "site.bak", 1000)
    _replace(fs.here / "site", backup="site.bak")
    assert tree(fs.here / "site.bak") == old
    _wait_until_gone(fs.here)
    assert tree(fs.here / "site.bak") == old
    assert sorted(os.listdir(fs.here)) == ["site", "site.bak"]


@each_opening
def test_where_nothing_is_displaced_nothing_is_left_to_do(fs: Filesystem, opening: Any) -> None:
    _replace(fs.here / "site", opening)
    assert os.listdir(fs.here) == ["site"]


@with_exchange
@each_opening
def test_an_exception_leaves_the_old_version_and_nothing_else(fs: Filesystem, opening: Any) -> None:
    _make(fs.here / "site", 100)
    old = tree(fs.here / "site")
    with pytest.raises(LookupError):
        with opening(fs.here / "site", overwrite=True, cleanup="background") as staging:
            _make(staging, 100)
            raise LookupError
    assert os.listdir(fs.here) == ["site"]
    assert tree(fs.here / "site") == old


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"], indirect=True)
def test_what_resists_stays_for_the_next_writer_and_fails_nothing(fs: Filesystem) -> None:
    _make(fs.here / "site", 10)
    fs.make_immutable(fs.here / "site" / "3" / "3")
    _replace(fs.here / "site")
    assert tree(fs.here / "site").keys() == {"new"}
    kernel.set_immutable(_wait_for_the_last(fs.here, "3"), immutable=False)
    # As soon as the thread has given up.
    _wait_until_gone(fs.here, lambda: _replace(fs.here / "site", cleanup="inline"))
    assert os.listdir(fs.here) == ["site"]


def _wait_for_the_last(folder: Path, name: str) -> Path:
    """Looks again until all files that were displaced have been removed but this one."""
    end = time.monotonic() + _SECONDS
    while True:
        slots = [folder / slot for slot in leftovers(folder)]
        files = [
            Path(at, file) for slot in slots for at, _, names in os.walk(slot) for file in names
        ]
        if [path.name for path in files] == [name]:
            return files[0]
        assert time.monotonic() < end, files
        time.sleep(0.001)


@with_exchange
def test_the_end_of_the_interpreter_leaves_what_the_next_writer_removes(fs: Filesystem) -> None:
    script = "import atomik, sys\nwith atomik.folder(sys.argv[1], True, cleanup='background'): pass"
    _make(fs.here / "site", 3000)
    ran = run_program("-c", script, fs.here / "site")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert os.listdir(fs.here / "site") == []
    _replace(fs.here / "site", cleanup="inline")
    assert os.listdir(fs.here) == ["site"]


@each_opening
@pytest.mark.parametrize("cleanup", ["", "Background", "later", None])
def test_another_word_is_refused_before_anything_is_touched(
    here: Path, opening: Any, cleanup: Any
) -> None:
    with pytest.raises((ValueError, TypeError)), opening(here / "site", cleanup=cleanup):
        pytest.fail("the body ran")
    assert os.listdir(here) == []
