"""What happens to the process in the body: forks, signals, chdir, and every way to end."""

import _thread
import errno
import operator
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import guard_programs, slot_names
from support.filesystems import Filesystem, leftovers
from support.guard_kinds import KINDS, Kind, each_kind
from support.processes import ROOT, run_as, run_program, start_program

PROGRAMS: Final = Path(guard_programs.__file__)

# What a child's ending means as an exit status: refused commits are tracebacks.
STATUSES: Final = {
    "sys.exit": 3,
    "os._exit": 3,
    "exception": 1,
    "falling out": 1,
    "exec": 3,
    "SIGKILL": -signal.SIGKILL,
    "commit": 1,
    "rollback": 1,
}

each_filesystem_with_and_without_unnamed_files = pytest.mark.parametrize(
    ("fs", "kind"),
    [("tmpfs", kind) for kind in KINDS.values()] + [("bindfs", KINDS["file"])],
    ids=[*KINDS, "named file"],
    indirect=["fs"],
)
each_exception = pytest.mark.parametrize(
    "exception",
    [
        LookupError,
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        StopIteration,
        MemoryError,
        BaseException,
    ],
)


def with_old(fs: Filesystem, kind: Kind) -> Path:
    """Returns a destination that has the version "old"."""
    destination = fs.here / "destination"
    kind.publish(destination, "old", overwrite=True)
    return destination


# Forks


def test_every_ending_of_a_child_has_a_status() -> None:
    assert STATUSES.keys() == guard_programs.CHILD_ENDINGS.keys()


@pytest.mark.parametrize("ending", STATUSES)
@each_filesystem_with_and_without_unnamed_files
def test_a_forked_child_changes_nothing_however_it_ends(
    fs: Filesystem, kind: Kind, ending: str
) -> None:
    destination = with_old(fs, kind)
    ended = run_program(PROGRAMS, "fork", kind.name, destination, ending)
    assert (ended.returncode, ended.stdout) == (0, f"{STATUSES[ending]}\n"), ended.stderr
    assert kind.read(destination) == "new"
    if ending in ("falling out", "commit", "rollback"):
        assert "RuntimeError" in ended.stderr
        assert "forked child" in ended.stderr


@pytest.mark.parametrize("ending", ["sys.exit", "exception", "falling out"])
@each_filesystem_with_and_without_unnamed_files
def test_a_forked_childs_destructors_change_nothing(
    fs: Filesystem, kind: Kind, ending: str
) -> None:
    destination = with_old(fs, kind)
    ended = run_program(PROGRAMS, "fork_while_entered_by_hand", kind.name, destination, ending)
    status = 0 if ending == "falling out" else STATUSES[ending]
    assert (ended.returncode, ended.stdout) == (0, f"{status}\n"), ended.stderr
    assert kind.read(destination) == "new"


@each_kind
def test_a_child_that_outlives_the_commit_holds_nobody_up(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    with start_program(
        PROGRAMS, "fork_and_leave_the_child_running", kind.name, destination
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert parent.wait(60) == 0
            assert kind.read(destination) == "new"
            kind.publish(destination, "newer", overwrite=True)
            assert kind.read(destination) == "newer"
            assert leftovers(here) == []
        finally:
            os.kill(child, signal.SIGKILL)


# The folder


@each_kind
@pytest.mark.parametrize("by_fd", [False, True], ids=["relative", "dir_fd"])
def test_chdir_in_the_body_changes_nothing(here: Path, kind: Kind, by_fd: bool) -> None:
    (start := here / "start").mkdir()
    (other := here / "other").mkdir()

    def change() -> None:
        os.chdir("/" if by_fd else start)
        dir_fd = os.open(start, os.O_DIRECTORY) if by_fd else None
        with kind.open("destination", dir_fd=dir_fd) as staging:
            os.chdir(other)
            kind.write(staging, "new")

    run_as(ROOT, change)
    assert kind.read(start / "destination") == "new"
    assert list(other.iterdir()) == []


@each_kind
def test_the_destination_stays_in_a_folder_that_is_renamed_in_the_body(
    here: Path, kind: Kind
) -> None:
    (start := here / "start").mkdir()
    with kind.open(start / "destination") as staging:
        kind.write(staging, "new")
        start.rename(here / "moved")
        start.mkdir()
    assert list(start.iterdir()) == []
    assert kind.read(here / "moved" / "destination") == "new"
    assert leftovers(here) == []


@each_kind
def test_a_rollback_in_a_folder_that_is_renamed_in_the_body_leaves_nothing(
    here: Path, kind: Kind
) -> None:
    (start := here / "start").mkdir()
    with pytest.raises(LookupError), kind.open(start / "destination") as staging:
        kind.write(staging, "new")
        start.rename(here / "moved")
        raise LookupError
    assert list((here / "moved").iterdir()) == []


def test_a_folder_that_is_removed_in_the_body_is_not_made_again(here: Path) -> None:
    (start := here / "start").mkdir()
    with pytest.raises(atomik.ConflictError) as caught, atomik.file(start / "destination") as file:
        file.write("new")
        start.rmdir()
    assert caught.value.filename == os.fspath(start / "destination")
    assert list(here.iterdir()) == []


@each_kind
@pytest.mark.parametrize("fd", [-1, 1 << 20])
def test_a_dir_fd_that_is_not_open_is_refused(kind: Kind, fd: int) -> None:
    with pytest.raises(OSError, match="Bad file") as caught:
        kind.open("destination", dir_fd=fd).__enter__()
    assert caught.value.errno == errno.EBADF
    assert caught.value.filename == "destination"


@pytest.mark.parametrize("fd", [-1, 1 << 20])
def test_renames_refuse_a_dir_fd_that_is_not_open_and_name_both_paths(fd: int) -> None:
    calls: list[Callable[[], None]] = [
        lambda: atomik.rename("a", "b", src_dir_fd=fd),
        lambda: atomik.rename("a", "b", dst_dir_fd=fd),
        lambda: atomik.exchange("a", "b", b_dir_fd=fd),
        lambda: atomik.renameat2(fd, "a", atomik.AT_FDCWD, "b", 0),
        lambda: atomik.renameat2(atomik.AT_FDCWD, "a", fd, "b", 0),
    ]
    for call in calls:
        with pytest.raises(OSError, match="Bad file") as caught:
            call()
        found = (caught.value.errno, caught.value.filename, caught.value.filename2)
        assert found == (errno.EBADF, "a", "b")


@each_kind
def test_a_dir_fd_of_a_file_is_refused(here: Path, kind: Kind) -> None:
    (here / "file").touch()
    with open(here / "file") as file, pytest.raises(NotADirectoryError):
        kind.open("destination", dir_fd=file.fileno()).__enter__()


@each_kind
def test_a_dir_fd_may_be_closed_in_the_body(here: Path, kind: Kind) -> None:
    dir_fd = os.open(here, os.O_DIRECTORY)
    with kind.open("destination", dir_fd=dir_fd) as staging:
        os.close(dir_fd)
        kind.write(staging, "new")
    assert kind.read(here / "destination") == "new"


@each_kind
def test_a_dir_fd_need_not_be_open_for_an_absolute_path(here: Path, kind: Kind) -> None:
    with kind.open(here / "destination", dir_fd=1 << 20) as staging:
        kind.write(staging, "new")
    assert kind.read(here / "destination") == "new"


@each_kind
def test_a_dir_fd_changes_nothing_for_an_absolute_path(here: Path, kind: Kind) -> None:
    dir_fd = os.open("/", os.O_DIRECTORY)
    try:
        with kind.open(here / "destination", dir_fd=dir_fd) as staging:
            kind.write(staging, "new")
    finally:
        os.close(dir_fd)
    assert kind.read(here / "destination") == "new"


# Exceptions, generators, the interpreter's end


@each_exception
@each_kind
def test_every_exception_rolls_back_and_is_raised(
    here: Path, kind: Kind, exception: type[BaseException]
) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    mine = exception()
    with pytest.raises(exception) as caught, kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        raise mine
    assert caught.value is mine
    assert kind.read(destination) == "old"
    assert leftovers(here) == []


def body(kind: Kind, destination: Path) -> Iterator[None]:
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        yield


@each_kind
def test_a_closed_generator_rolls_back(here: Path, kind: Kind) -> None:
    generator = body(kind, here / "destination")
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert list(here.iterdir()) == []


@each_kind
def test_a_generator_that_nobody_finishes_rolls_back(here: Path, kind: Kind) -> None:
    generator = body(kind, here / "destination")
    next(generator)
    del generator
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("program", ["end_with_an_open_guard", "end_with_an_unfinished_generator"])
@each_filesystem_with_and_without_unnamed_files
def test_the_interpreters_end_rolls_back(fs: Filesystem, kind: Kind, program: str) -> None:
    destination = with_old(fs, kind)
    ended = run_program(PROGRAMS, program, kind.name, destination)
    assert ended.returncode == 0
    if program == "end_with_an_open_guard":
        # As of an open file.
        assert "ResourceWarning" in ended.stderr
        assert "was entered and not ended" in ended.stderr
    else:
        assert ended.stderr == ""
    assert kind.read(destination) == "old"
    assert fs.leftovers() == []


# Signals


def in_the_body(program: str, kind: Kind, destination: Path) -> "subprocess.Popen[str]":
    """Starts a program and waits until its body has begun."""
    started = start_program(PROGRAMS, program, kind.name, destination)
    assert started.stdout is not None
    assert started.stdout.readline() == "in the body\n"
    return started


@pytest.mark.leaves_orphans
@each_filesystem_with_and_without_unnamed_files
def test_kill_in_the_body_leaves_at_most_one_orphan_which_the_next_writer_removes(
    fs: Filesystem, kind: Kind
) -> None:
    destination = with_old(fs, kind)
    with in_the_body("wait", kind, destination) as program:
        program.kill()
    assert kind.read(destination) == "old"
    unnamed = kind.name == "file" and fs.unnamed
    orphans = [path for path in fs.here.iterdir() if path != destination]
    assert orphans == ([] if unnamed else [slot_names.porch(destination)])
    kind.publish(destination, "new", overwrite=True)
    assert kind.read(destination) == "new"
    assert fs.leftovers() == []


@pytest.mark.leaves_orphans
@each_filesystem_with_and_without_unnamed_files
def test_several_killed_writers_leave_one_orphan_each_and_the_next_writer_removes_all(
    fs: Filesystem, kind: Kind
) -> None:
    destination = with_old(fs, kind)
    programs = [in_the_body("wait", kind, destination) for _ in range(3)]
    for program in programs:
        with program:
            program.kill()
    if kind.name == "file" and fs.unnamed:
        assert fs.leftovers() == []
    else:
        porch, room = slot_names.porch(destination), slot_names.room(destination)
        assert sorted(fs.here.iterdir()) == sorted([destination, porch, room])
        assert len(list(room.iterdir())) == len(programs) - 1
    kind.publish(destination, "new", overwrite=True)
    assert kind.read(destination) == "new"
    assert fs.leftovers() == []


@each_filesystem_with_and_without_unnamed_files
def test_a_stopped_writer_keeps_its_staging(fs: Filesystem, kind: Kind) -> None:
    destination = with_old(fs, kind)
    with in_the_body("wait", kind, destination) as program:
        program.send_signal(signal.SIGSTOP)
        try:
            kind.publish(destination, "new", overwrite=True)
            assert kind.read(destination) == "new"
        finally:
            program.send_signal(signal.SIGCONT)
        _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")
    assert kind.read(destination) == "half"


@each_filesystem_with_and_without_unnamed_files
def test_ctrl_c_in_the_body_rolls_back(fs: Filesystem, kind: Kind) -> None:
    destination = with_old(fs, kind)
    with in_the_body("be_interrupted", kind, destination) as program:
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=60)
    assert program.returncode == -signal.SIGINT
    assert kind.read(destination) == "old"
    assert fs.leftovers() == []


def call_interrupted(call: Callable[[], object]) -> None:
    """Makes a call with Ctrl-C pending: between the two no bytecode runs that could raise it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(map(operator.call, (_thread.interrupt_main, call)))


@pytest.mark.parametrize("durability", ["full", "ordered", "none"])
@each_filesystem_with_and_without_unnamed_files
def test_ctrl_c_before_the_publish_rolls_back(fs: Filesystem, kind: Kind, durability: str) -> None:
    destination = with_old(fs, kind)

    def commit() -> bool:
        guard = kind.open(destination, overwrite=True, durability=durability)
        with guard as staging:
            kind.write(staging, "new")
            with pytest.raises(KeyboardInterrupt):
                call_interrupted(guard.commit)
        return guard.committed

    assert run_as(ROOT, commit) is False
    assert kind.read(destination) == "old"
    assert fs.leftovers() == []


@pytest.mark.parametrize("fs", ["tmpfs", "bindfs"], indirect=True)
@pytest.mark.parametrize("write", ["write_bytes", "write_text"])
def test_ctrl_c_in_a_single_call_leaves_the_old_version(fs: Filesystem, write: str) -> None:
    destination = fs.here / "destination"
    destination.write_text("old")
    data: Any = b"new" if write == "write_bytes" else "new"
    call = partial(getattr(atomik, write), destination, data, overwrite=True)

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            call_interrupted(call)

    run_as(ROOT, interrupted)
    assert destination.read_text() == "old"
    assert fs.leftovers() == []


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_handler_that_raises_nothing_does_not_stop_the_commit(fs: Filesystem) -> None:
    kind = KINDS["folder"]
    destination = with_old(fs, kind)

    def commit() -> list[int]:
        handled: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: handled.append(number))
        guard = kind.open(destination, overwrite=True)
        with guard as staging:
            kind.write(staging, "new")
            list(map(operator.call, (_thread.interrupt_main, guard.commit)))
        return handled

    assert run_as(ROOT, commit) == [signal.SIGINT]
    assert kind.read(destination) == "new"


FOLDERS: Final = 150
FILES: Final = 20


def many_files(folder: Path, version: str) -> None:
    for number in range(FOLDERS):
        (inner := folder / str(number)).mkdir()
        for name in range(FILES):
            (inner / str(name)).write_text(version)


def version_of_many(folder: Path) -> str:
    """Returns the version of every one of the files."""
    (version,) = {
        (folder / str(number) / str(name)).read_text()
        for number in range(FOLDERS)
        for name in range(FILES)
    }
    return version


class StoppedError(Exception):
    pass


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
@pytest.mark.parametrize("when", ["syncing", "cleaning up"])
def test_signals_during_a_long_commit_never_leave_half_a_version(fs: Filesystem, when: str) -> None:
    destination = fs.folder("destination")
    many_files(destination, "old")

    def commit() -> bool:
        guard = atomik.folder(destination, overwrite=True)
        over = threading.Event()

        def stop(*_: object) -> None:
            published = not (destination / "0" / "0").exists() or version() == "new"
            if not over.is_set() and guard.staging is None and published == (when == "cleaning up"):
                over.set()
                raise StoppedError

        def version() -> str:
            return (destination / "0" / "0").read_text()

        def signal_often() -> None:
            while not over.wait(0.0005):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, stop)
        signaller = threading.Thread(target=signal_often)
        try:
            with guard as staging:
                many_files(staging, "new")
                signaller.start()
        except StoppedError:
            assert guard.committed == (when == "cleaning up")
        finally:
            over.set()
            signaller.join()
        return guard.committed

    committed = run_as(ROOT, commit)
    assert version_of_many(destination) == ("new" if committed else "old")
    with atomik.folder(destination, overwrite=True, durability="none") as staging:
        (staging / "final").touch()
    assert [path.name for path in destination.iterdir()] == ["final"]
    assert fs.leftovers() == []
