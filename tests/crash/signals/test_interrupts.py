"""Proves that a signal at any system call of an operation leaves the old version or the new one.

Ctrl-C raises KeyboardInterrupt: before the publish everything is rolled back, after it the version
stays. SIGTERM without a handler ends the process there. A handler that raises nothing changes
nothing, though the calls are interrupted (EINTR).
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import atomik
import pytest
from support.filesystems import Filesystem, leftovers
from support.guard_kinds import AnyGuard, Kind

from signals.delivery import Ending, calls, deliver, why_not

MISSING: Final = "missing"


def _write_file(staging: Any, version: str) -> None:
    staging.write(version)


def _write(path: Path, version: str) -> None:
    # With as few system calls as it takes: a signal is delivered at each of them.
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(fd, version.encode())
    finally:
        os.close(fd)


def _write_folder(staging: Path, version: str) -> None:
    os.mkdir(staging / "inner")
    for name in ("one", "inner/two"):
        _write(staging / name, version)


def _read_folder(destination: Path) -> str:
    versions = {(destination / name).read_text() for name in ("one", "inner/two")}
    return "/".join(sorted(versions))


FILE: Final = Kind("file", atomik.file, _write_file, Path.read_text)
FOLDER: Final = Kind("folder", atomik.folder, _write_folder, _read_folder)
PATH: Final = Kind("path", atomik.path, _write, Path.read_text)


@dataclass(frozen=True)
class Publication:
    """One operation: what it makes, how, and whether there is an old version."""

    kind: Kind
    replacing: bool
    at_once: bool = False

    def __str__(self) -> str:
        how = "write_text" if self.at_once else self.kind.name
        return f"{how}, {'replacing' if self.replacing else 'new'}"

    @property
    def before(self) -> str:
        return "old" if self.replacing else MISSING

    def prepare(self, destination: Path) -> None:
        if self.replacing:
            self.kind.publish(destination, "old", durability="none")

    def perform(self, destination: Path, guards: list[AnyGuard]) -> None:
        if self.at_once:
            atomik.write_text(destination, "new", overwrite=self.replacing)
            return
        guard = self.kind.open(destination, overwrite=self.replacing)
        guards.append(guard)
        with guard as staging:
            self.kind.write(staging, "new")

    def version(self, destination: Path) -> str:
        return self.kind.read(destination) if destination.exists() else MISSING


NEW_FILE: Final = Publication(FILE, replacing=False)
REPLACED_FILE: Final = Publication(FILE, replacing=True)
WRITTEN_AT_ONCE: Final = Publication(FILE, replacing=True, at_once=True)
NEW_FOLDER: Final = Publication(FOLDER, replacing=False)
REPLACED_FOLDER: Final = Publication(FOLDER, replacing=True)
REPLACED_PATH: Final = Publication(PATH, replacing=True)
# What is to come (update, backup, group) is added here.
ALL: Final = (
    NEW_FILE,
    REPLACED_FILE,
    WRITTEN_AT_ONCE,
    NEW_FOLDER,
    REPLACED_FOLDER,
    REPLACED_PATH,
)


def on(publications: Sequence[Publication], *, ext4: Sequence[Publication]) -> pytest.MarkDecorator:
    """Runs a test with some publications on tmpfs, and fewer, which take as many calls there, on ext4."""
    return pytest.mark.parametrize(
        ("fs", "publication"),
        [("tmpfs", publication) for publication in publications]
        + [("ext4", publication) for publication in ext4],
        indirect=["fs"],
        ids=str,
    )


@dataclass(frozen=True)
class Aftermath:
    """What one signal has left: how the child ended, the version, the library's own names."""

    at: str
    ending: Ending
    version: str
    left: list[str]
    unmended: list[str]


def each_call(
    publication: Publication,
    fs: Filesystem,
    number: signal.Signals,
    prepare: Callable[[], object],
) -> Iterator[Aftermath]:
    """Publishes once for each system call, gets the signal there, and lets the next writer come."""
    folder = fs.here / "folder"
    destination = folder / "destination"

    def perform(guards: list[AnyGuard]) -> None:
        publication.perform(destination, guards)

    def make_folder() -> None:
        folder.mkdir()
        publication.prepare(destination)

    # Once here: what is asked of the kernel once in a process is over when the children are forked.
    make_folder()
    perform([])
    shutil.rmtree(folder)
    make_folder()
    reached = calls(perform, fs.here / "trace")
    shutil.rmtree(folder)
    assert reached
    for call in reached:
        make_folder()
        ending = deliver(number, call, perform, prepare)
        version, left = publication.version(destination), leftovers(folder)
        publication.kind.publish(destination, "next", overwrite=True, durability="none")
        assert publication.version(destination) == "next"
        yield Aftermath(str(call), ending, version, left, leftovers(folder))
        shutil.rmtree(folder)


def unjust(publication: Publication, aftermath: Aftermath, exception: str) -> Iterator[str]:
    """Says what an exception from a handler has broken."""
    report = aftermath.ending.report
    if report is None or aftermath.ending.status != 0:
        yield f"it ended: {aftermath.ending}"
        return
    if report.raised != exception:
        yield f"it raises {report.raised}"
    if report.unraisable:
        yield f"lost in a destructor: {report.unraisable}"
    if report.committed not in (None, aftermath.version == "new"):
        yield f"committed is {report.committed}, and the destination {aftermath.version}"
    if aftermath.version == publication.before and aftermath.left:
        yield f"rolled back, it leaves {aftermath.left}"


def misplaced(publication: Publication, aftermath: Aftermath) -> Iterator[str]:
    """Says what no signal may do."""
    if aftermath.version not in (publication.before, "new"):
        yield f"the destination is {aftermath.version}"
    if aftermath.unmended:
        yield f"the next writer leaves {aftermath.unmended}"


def falls_back(versions: list[str]) -> bool:
    """Was a version gone again at a later call, or was the publish never reached, or never missed?"""
    return (
        versions != sorted(versions, key=lambda version: version == "new") or len({*versions}) != 2
    )


def leave(*_: object) -> NoReturn:
    sys.exit(1)


def raise_keyboard_interrupt() -> None:
    # A shell's background job ignores Ctrl-C; this is what an interactive program has.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def raise_system_exit() -> None:
    signal.signal(signal.SIGTERM, leave)


@pytest.fixture(autouse=True)
def _needs_strace() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)


@on(ALL, ext4=[REPLACED_FILE, REPLACED_FOLDER])
def test_ctrl_c_at_any_call_rolls_back_or_leaves_the_new_version(
    fs: Filesystem, publication: Publication
) -> None:
    check_exception(fs, publication, signal.SIGINT, raise_keyboard_interrupt, "KeyboardInterrupt")


@on([REPLACED_FOLDER], ext4=[])
def test_sigterm_with_a_handler_that_exits_does_the_same(
    fs: Filesystem, publication: Publication
) -> None:
    check_exception(fs, publication, signal.SIGTERM, raise_system_exit, "SystemExit")


def check_exception(
    fs: Filesystem,
    publication: Publication,
    number: signal.Signals,
    prepare: Callable[[], object],
    exception: str,
) -> None:
    aftermaths = list(each_call(publication, fs, number, prepare))
    assert [
        f"{aftermath.at}: {broken}"
        for aftermath in aftermaths
        for broken in (
            *unjust(publication, aftermath, exception),
            *misplaced(publication, aftermath),
        )
    ] == []
    assert not falls_back([aftermath.version for aftermath in aftermaths])


@on([REPLACED_FILE, NEW_FOLDER, REPLACED_FOLDER], ext4=[REPLACED_FOLDER])
def test_sigterm_at_any_call_leaves_nothing_that_the_next_writer_does_not_remove(
    fs: Filesystem, publication: Publication
) -> None:
    def die() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    aftermaths = list(each_call(publication, fs, signal.SIGTERM, die))
    assert [
        f"{aftermath.at}: {broken}"
        for aftermath in aftermaths
        for broken in misplaced(publication, aftermath)
    ] == []
    assert {aftermath.ending.status for aftermath in aftermaths} == {-signal.SIGTERM}
    # A file has a name for two calls only, a folder for most of them: orphans were met.
    assert any(aftermath.left for aftermath in aftermaths)
    assert not falls_back([aftermath.version for aftermath in aftermaths])


@on([REPLACED_FILE, WRITTEN_AT_ONCE, REPLACED_FOLDER], ext4=[])
def test_a_handler_that_raises_nothing_changes_nothing_at_any_call(
    fs: Filesystem, publication: Publication
) -> None:
    def do_nothing(*_: object) -> None:
        pass

    def handle() -> None:
        signal.signal(signal.SIGALRM, do_nothing)
        # Calls that wait end with EINTR, not as SA_RESTART has it.
        signal.siginterrupt(signal.SIGALRM, True)

    assert [
        f"{aftermath.at}: {aftermath}"
        for aftermath in each_call(publication, fs, signal.SIGALRM, handle)
        if (report := aftermath.ending.report) is None
        or report.raised is not None
        or report.unraisable
        or (aftermath.version, aftermath.left, aftermath.unmended) != ("new", [], [])
    ] == []
