"""What lies beside a destination while it is written: nobody's pattern matches it, and it goes."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import kernel, slot_names, strace
from support.crowd import Say, Wait, crowd
from support.filesystems import Filesystem
from support.outcomes import CALLS, Outcome, say_attempt, unexpected
from support.processes import start_program

pytestmark = pytest.mark.thread_unsafe(reason="forks processes")

on_ext4_and_tmpfs = pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)

_READER: Final = """
import sys
import atomik

with atomik.snapshot(sys.argv[1]):
    print("reading", flush=True)
    sys.stdin.read()
"""


def _publish(destination: Path, word: str) -> None:
    with atomik.folder(destination, overwrite=True, durability="none") as staging:
        (staging / "file").write_text(word)


def _kill(program: "subprocess.Popen[str]") -> None:
    with program:
        program.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True)
def test_what_is_removed_has_no_links(fs: Filesystem) -> None:
    """By this a writer sees that its slot, or its publish lock, was removed before it was locked."""
    folder, file = fs.here / "folder", fs.here / "file"
    folder.mkdir()
    file.touch()
    with ExitStack() as undo:
        opened = [os.open(path, os.O_RDONLY) for path in (folder, file)]
        for fd in opened:
            undo.callback(os.close, fd)
        folder.rmdir()
        file.unlink()
        assert [os.fstat(fd).st_nlink for fd in opened] == [0, 0]


@on_ext4_and_tmpfs
@pytest.mark.parametrize("order", ["first in, last out", "first in, first out"])
def test_what_a_killed_reader_has_pinned_goes_with_the_next_writer(
    fs: Filesystem, order: str
) -> None:
    """Many writers are in their bodies when the first commits: its displaced version is pinned."""
    destination = fs.here / "data"
    _publish(destination, "old")
    guards = [atomik.folder(destination, overwrite=True, durability="none") for _ in range(5)]
    for number, guard in enumerate(guards):
        (guard.__enter__() / "file").write_text(str(number))
    readers = [start_program("-c", _READER, destination)]
    assert readers[0].stdout is not None
    assert readers[0].stdout.readline() == "reading\n"
    for guard in guards if order == "first in, first out" else reversed(guards):
        guard.__exit__(None, None, None)
    _kill(readers[0])
    _publish(destination, "next")
    assert os.listdir(fs.here) == ["data"]


@on_ext4_and_tmpfs
def test_many_pinned_versions_go_with_the_next_writer(fs: Filesystem) -> None:
    destination = fs.here / "data"
    _publish(destination, "old")
    readers: list[subprocess.Popen[str]] = []
    with ExitStack() as undo:
        for version in range(4):
            reader = start_program("-c", _READER, destination)
            undo.callback(_kill, reader)
            readers.append(reader)
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            _publish(destination, str(version))
    _publish(destination, "next")
    assert os.listdir(fs.here) == ["data"]


@on_ext4_and_tmpfs
@pytest.mark.parametrize(
    "other", ["write_bytes", "file", "file that appends", "file with a backup"]
)
def test_a_path_and_a_file_can_be_written_at_once(fs: Filesystem, other: str) -> None:
    destination = fs.here / "data"
    destination.write_bytes(b"")
    end = time.monotonic() + 2

    def job(number: int, say: Say, _: Wait) -> None:
        call = CALLS["path to a file" if number % 2 else other]
        while time.monotonic() < end:
            say_attempt(say, call, destination, number)

    with crowd(job, processes=4, threads=1) as writers:
        said = writers.finish()
    print(Counter(said))
    assert unexpected(said, Outcome.PUBLISHED, Outcome.CONFLICT) == {}
    assert set(os.listdir(fs.here)) <= {"data", "backup"}


@on_ext4_and_tmpfs
def test_readers_that_cross_writers_leave_no_version_behind(fs: Filesystem) -> None:
    destination = fs.here / "data"
    _publish(destination, "old")
    end = time.monotonic() + 2

    def job(number: int, say: Say, _: Wait) -> None:
        for _turn in range(40):
            if number:
                with atomik.snapshot(destination) as version:
                    (version / "file").read_text()
            else:
                _publish(destination, "new")
        say("done")

    rounds = 0
    left: Counter[str] = Counter()
    while time.monotonic() < end:
        with crowd(job, processes=3, threads=1) as writers:
            assert writers.finish() == ["done"] * 3
        rounds += 1
        left.update(fs.leftovers())
    assert left == {}, f"in {rounds} rounds"


def _group(destination: Path, body: Callable[[], None]) -> None:
    with atomik.group(durability="none") as group:
        with group.file(destination, "w", overwrite=True) as staging:
            staging.write("new")
            body()
        with group.path(destination.with_name("other.parquet"), overwrite=True) as path:
            path.write_text("new")
            body()
        body()


def _file(destination: Path, body: Callable[[], None]) -> None:
    with atomik.file(destination, overwrite=True, durability="none") as staging:
        staging.write("new")
        body()


def _backup(destination: Path, body: Callable[[], None]) -> None:
    with atomik.file(destination, overwrite=True, durability="none", backup="old.bak") as staging:
        staging.write("new")
        body()


def _append(destination: Path, body: Callable[[], None]) -> None:
    with atomik.file(destination, "a", overwrite=True, durability="none") as staging:
        staging.write("new")
        body()


def _folder(destination: Path, body: Callable[[], None]) -> None:
    with atomik.folder(destination, overwrite=True, durability="none") as staging:
        assert staging.name.endswith(destination.name)
        assert staging.suffix == destination.suffix
        (staging / "part").write_text("new")
        body()


def _path(destination: Path, body: Callable[[], None]) -> None:
    with atomik.path(destination, overwrite=True, durability="none") as staging:
        assert staging.name.endswith(destination.name)
        assert staging.suffix == destination.suffix
        staging.write_text("new")
        body()


_GUARDS: Final[Mapping[str, Callable[[Path, Callable[[], None]], None]]] = {
    "file": _file,
    "file with a backup": _backup,
    "file that appends": _append,
    "folder": _folder,
    "path": _path,
    "group": _group,
}

_ENDING: Final = "*.parquet"


@pytest.mark.parametrize("exists", [True, False], ids=["replaced", "new"])
@pytest.mark.parametrize("guard", _GUARDS)
def test_no_pattern_finds_what_is_being_written(fs: Filesystem, guard: str, exists: bool) -> None:
    _skip_what_needs_exchange(fs, guard, exists)
    destination = _destination(fs, guard, exists)
    before = sorted(fs.here.glob(_ENDING))
    found: list[list[Path]] = []
    _GUARDS[guard](destination, lambda: found.append(sorted(fs.here.glob(_ENDING))))
    assert found != []
    assert found == [before] * len(found)


@pytest.mark.parametrize("guard", ["file", "file with a backup", "folder", "path"])
def test_no_pattern_finds_what_many_are_writing(fs: Filesystem, guard: str) -> None:
    _skip_what_needs_exchange(fs, guard, exists=True)
    destination = _destination(fs, guard, exists=True)
    found: list[list[Path]] = []

    def nest(depth: int) -> None:
        found.append(sorted(fs.here.glob(_ENDING)))
        if depth > 0:
            _GUARDS[guard](destination, lambda: nest(depth - 1))

    nest(4)
    assert found == [[destination]] * 5


@pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
def test_no_pattern_finds_a_version_that_a_reader_has_pinned(fs: Filesystem) -> None:
    destination = fs.here / "x.parquet"
    _publish(destination, "old")
    with atomik.snapshot(destination):
        _publish(destination, "new")
        assert fs.leftovers() != []
        assert list(fs.here.glob(_ENDING)) == [destination]


def _skip_what_needs_exchange(fs: Filesystem, guard: str, exists: bool) -> None:
    if fs.flags & kernel.EXCHANGE or not exists:
        return
    if guard in ("folder", "file with a backup", "group"):
        pytest.skip(f"{fs.name} has no RENAME_EXCHANGE")


def _destination(fs: Filesystem, guard: str, exists: bool) -> Path:
    destination = fs.here / "x.parquet"
    if exists and guard == "folder":
        destination.mkdir()
    elif exists:
        destination.write_text("old")
    return destination


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True)
@pytest.mark.skipif(strace.why_not() is not None, reason=str(strace.why_not()))
def test_a_file_that_is_about_to_replace_another_is_complete_and_has_its_mode(
    fs: Filesystem,
) -> None:
    """It is so for microseconds: the process is killed as it renames the file over the destination."""
    destination = fs.here / "destination"
    destination.write_text("old")
    destination.chmod(0o640)
    program = f"import atomik; atomik.write_text({os.fspath(destination)!r}, 'new', overwrite=True)"
    renames = "renameat,renameat2"
    command = (
        *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={renames}"),
        *("-e", f"inject={renames}:signal=SIGKILL", sys.executable, "-B", "-c", program),
    )
    subprocess.run(command, check=False, timeout=60)
    assert destination.read_text() == "old"
    porch = slot_names.porch(destination)
    assert porch.read_text() == "new"
    assert stat.S_IMODE(porch.stat().st_mode) == 0o640
    porch.unlink()
