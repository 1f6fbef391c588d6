"""A process that commits for months stays as large as it was."""

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import atomik
import pytest
from support.filesystems import Filesystem
from support.processes import ROOT, run_as

pytestmark = [
    pytest.mark.thread_unsafe(reason="counts what the whole process has"),
    pytest.mark.parametrize("fs", ["tmpfs"], indirect=True),
]

MANY: Final = 100_000
SOME: Final = 2_000
WARM_UP: Final = 300

# One leaked block of 32 bytes a commit, the smallest that malloc has, would be 3.2 MB after 100,000
# commits, and one leaked page-sized buffer 8 MB after 2,000. What the allocators of Python and
# libc keep for later, once warm, is some hundred KiB.
RESIDENT: Final = 2 << 20
# Python's caches (of methods, integers, the interned) come and go by some dozens of blocks; one
# leaked object a call would be 2,000.
BLOCKS: Final = 500


@dataclass(frozen=True)
class Size:
    """What the process has now."""

    descriptors: dict[str, str]
    resident: int
    blocks: int


def size() -> Size:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)
    assert found
    descriptors: dict[str, str] = {}
    for number in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is closed by now.
        with suppress(FileNotFoundError):
            descriptors[number] = os.readlink(f"/proc/self/fd/{number}")
    return Size(descriptors, int(found[1]) << 10, sys.getallocatedblocks())


def assert_stays_as_it_is(call: Callable[[], object], times: int) -> None:
    for _ in range(WARM_UP):
        call()
    size()
    before = size()
    for _ in range(times):
        call()
    after = size()
    assert after.descriptors == before.descriptors
    assert after.blocks - before.blocks < BLOCKS
    assert after.resident - before.resident < RESIDENT


def test_a_hundred_thousand_commits_leave_the_process_as_it_was(fs: Filesystem) -> None:
    destination = fs.here / "destination"
    assert_stays_as_it_is(
        lambda: atomik.write_bytes(destination, b"new", overwrite=True, durability="none"), MANY
    )
    assert os.listdir(fs.here) == ["destination"]


def test_a_hundred_thousand_refusals_leave_the_process_as_it_was(fs: Filesystem) -> None:
    destination = fs.here / "destination"
    destination.write_bytes(b"old")

    def refuse() -> None:
        with pytest.raises(atomik.FileAlreadyExistsError):
            atomik.write_bytes(destination, b"new", durability="none")

    assert_stays_as_it_is(refuse, MANY // 10)


class Failure(Exception):  # noqa: N818 - what the body raises is its own business
    """Raised by bodies."""


def fail() -> NoReturn:
    raise Failure


def file(folder: Path) -> None:
    with atomik.file(folder / "file", "wb", overwrite=True, durability="none") as staging:
        staging.write(b"new")


def text(folder: Path) -> None:
    with atomik.file(folder / "file", overwrite=True, durability="none") as staging:
        staging.write("new")


def whole_folder(folder: Path) -> None:
    with atomik.folder(folder / "folder", overwrite=True, durability="none") as staging:
        (staging / "index.html").write_bytes(b"new")


def path(folder: Path) -> None:
    with atomik.path(folder / "path", overwrite=True, durability="none") as staging:
        staging.write_bytes(b"new")


def write_text(folder: Path) -> None:
    atomik.write_text(folder / "file", "new", overwrite=True, durability="none")


def rename(folder: Path) -> None:
    write_text(folder)
    atomik.rename(folder / "file", folder / "renamed", overwrite=True)


def rename_of_nothing(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomik.rename(folder / "nothing", folder / "renamed")


def nothing_published(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), atomik.path(folder / "nothing", durability="none"):
        pass


def failing_file(folder: Path) -> None:
    with (
        suppress(Failure),
        atomik.file(folder / "file", "wb", overwrite=True, durability="none") as staging,
    ):
        staging.write(b"new")
        fail()


def failing_folder(folder: Path) -> None:
    with (
        suppress(Failure),
        atomik.folder(folder / "folder", overwrite=True, durability="none") as staging,
    ):
        (staging / "index.html").write_bytes(b"new")
        fail()


def error_that_keeps_its_guard(folder: Path) -> None:
    """The guard is in a frame that the error's traceback keeps, and the error is in that frame."""
    guard = atomik.file(folder / "file", "wb", overwrite=True, durability="none")
    try:
        with guard:
            fail()
    except Failure as error:
        kept = error
    assert kept.__traceback__ is not None


def guard_in_a_cycle_that_is_never_ended(folder: Path) -> None:
    guard = atomik.folder(folder / "folder", overwrite=True, durability="none")
    cycle: list[object] = [guard, guard.__enter__()]
    cycle.append(cycle)


def generator_that_is_never_finished(folder: Path) -> None:
    def steps() -> Iterator[None]:
        with atomik.file(folder / "file", "wb", overwrite=True, durability="none") as staging:
            staging.write(b"new")
            yield

    next(steps())


def file_that_knows_its_guard(folder: Path) -> None:
    """What the body got leads back to the guard: only a cycle collector that sees both frees them."""
    guard = atomik.file(folder / "file", overwrite=True, durability="none")
    staging = guard.__enter__()
    staging.guard = guard  # type: ignore[attr-defined]
    guard.rollback()


def commit_too_much(folder: Path) -> None:
    guard = atomik.file(folder / "file", "wb", overwrite=True, durability="none")
    with pytest.raises(RuntimeError):
        guard.commit()
    with guard:
        pass
    with pytest.raises(RuntimeError):
        guard.rollback()
    with pytest.raises(RuntimeError):
        guard.__enter__()


def wrong_arguments(folder: Path) -> None:
    with pytest.raises(ValueError, match="mode"):
        atomik.file(folder / "file", cast("atomik.OpenMode", "r"))
    with pytest.raises(ValueError, match="durability"):
        atomik.folder(folder, durability="much")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        atomik.write_bytes(folder / "file", "text")  # type: ignore[arg-type]


CALLS: Final[Mapping[str, Callable[[Path], None]]] = {
    call.__name__: call
    for call in (
        file,
        text,
        whole_folder,
        path,
        write_text,
        rename,
        rename_of_nothing,
        nothing_published,
        failing_file,
        failing_folder,
        error_that_keeps_its_guard,
        guard_in_a_cycle_that_is_never_ended,
        generator_that_is_never_finished,
        file_that_knows_its_guard,
        commit_too_much,
        wrong_arguments,
    )
}


@pytest.mark.filterwarnings("ignore:.*use 'with':ResourceWarning")
@pytest.mark.parametrize("call", CALLS)
def test_thousands_of_calls_leave_the_process_as_it_was(fs: Filesystem, call: str) -> None:
    assert_stays_as_it_is(lambda: CALLS[call](fs.here), SOME)
    gc.collect()
    assert fs.leftovers() == []


@pytest.mark.filterwarnings("ignore:.*use 'with':ResourceWarning")
def test_a_guard_that_is_never_ended_gives_its_descriptors_back(fs: Filesystem) -> None:
    before = size().descriptors
    guards: list[atomik.File[Any] | atomik.Folder | atomik.Entry] = [
        atomik.file(fs.here / "file", "wb"),
        atomik.folder(fs.here / "folder"),
        atomik.path(fs.here / "path"),
    ]
    bodies = [guard.__enter__() for guard in guards]
    assert size().descriptors != before
    del guards, bodies
    assert size().descriptors == before
    assert os.listdir(fs.here) == []


def test_a_guard_in_a_cycle_with_its_own_file_gives_its_descriptors_back(fs: Filesystem) -> None:
    def lost_guards() -> tuple[dict[str, str], dict[str, str]]:
        before = size().descriptors
        for _ in range(10):
            guard = atomik.file(fs.here / "file")
            guard.__enter__().guard = guard  # type: ignore[attr-defined]
            del guard
        return before, size().descriptors

    # In a process of its own: what leaks would be other tests' leaks too.
    before, after = run_as(ROOT, lost_guards)
    assert after == before
