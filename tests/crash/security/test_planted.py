"""An attacker has put something under the names that the library will use, before it does.

Every kind of thing under every kind of name, also with a lock or a lease held on it. What stands in
the place of a slot is passed over: the publish succeeds, the thing stays as it is. What stands in the
place of a lock may make a publish fail, and never makes it wait without end: `run_as` ends a child
that does.
"""

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from support import slot_names
from support.filesystems import Filesystem
from support.processes import ROOT, User, run_as
from support.publishing import ALL, MAKING_FOLDERS, NEW
from support.trees import identities, tree

from security.people import (
    ATTACKER,
    OPEN,
    STICKY,
    VICTIM,
    each_folder,
    holding,
    run_without_waiting,
)
from security.places import Home, home, shared

NAME: Final = "site"

Plant = Callable[[Path, Home], object]


def _empty_folder(path: Path, _: Home) -> None:
    path.mkdir(mode=0o777)


def _staging_of_its_own(path: Path, home: Home) -> None:
    (path / NAME / "inner").mkdir(parents=True)
    (path / NAME / "file").write_text("the attacker's")
    (path / NAME / "link").symlink_to(home.folder)


def _entry_that_is_a_link(path: Path, home: Home) -> None:
    path.mkdir(mode=0o777)
    (path / NAME).symlink_to(home.folder)


def _file(path: Path, _: Home) -> None:
    path.write_text("the attacker's")


def _link_to_file(path: Path, home: Home) -> None:
    path.symlink_to(home.file)


def _link_to_folder(path: Path, home: Home) -> None:
    path.symlink_to(home.folder)


def _dangling_link(path: Path, home: Home) -> None:
    path.symlink_to(home.path / "missing")


def _link_to_itself(path: Path, _: Home) -> None:
    path.symlink_to(path)


def _fifo(path: Path, _: Home) -> None:
    os.mkfifo(path, 0o666)


def _socket(path: Path, _: Home) -> None:
    # A socket's path has at most 107 bytes.
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)


def _locked_folder(path: Path, _: Home) -> int:
    path.mkdir(mode=0o777)
    return _lock(path)


def _locked_file(path: Path, _: Home) -> int:
    path.touch(mode=0o666)
    return _lock(path)


def _locked_fifo(path: Path, home: Home) -> int:
    _fifo(path, home)
    return _lock(path)


def _leased_file(path: Path, _: Home) -> int:
    # Whoever opens it breaks the lease, and without O_NONBLOCK waits for that: fcntl(2).
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return fd


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


PLANTS: Final[Mapping[str, Plant]] = {
    plant.__name__.strip("_").replace("_", " "): plant
    for plant in (
        _empty_folder,
        _staging_of_its_own,
        _entry_that_is_a_link,
        _file,
        _link_to_file,
        _link_to_folder,
        _dangling_link,
        _link_to_itself,
        _fifo,
        _socket,
        _locked_folder,
        _locked_file,
        _locked_fifo,
        _leased_file,
    )
}

each_plant = pytest.mark.parametrize("plant", PLANTS)
on_tmpfs = pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)


def publish_all(parent: Path, user: User) -> None:
    """Publishes every kind of version, new and replacing, each under the one name."""
    destination = parent / NAME
    for call in ALL.values():
        for overwrite in (False, True):
            run_as(user, partial(call, destination, overwrite=overwrite))
            assert destination.lstat().st_uid == user.uid
        assert_new(destination)
        run_as(user, partial(_remove, destination))


def assert_new(destination: Path) -> None:
    if destination.is_dir():
        assert {name: entry.content for name, entry in tree(destination).items()} == {
            "inner": b"",
            "inner/new": NEW,
            "new": NEW,
        }
    else:
        assert destination.read_bytes() == NEW


def _remove(path: Path) -> None:
    if path.is_dir():
        for inner in (path / "inner" / "new", path / "new"):
            inner.unlink()
        (path / "inner").rmdir()
        path.rmdir()
    else:
        path.unlink()


@on_tmpfs
@pytest.mark.parametrize(
    ("user", "mode"),
    [(VICTIM, OPEN), (VICTIM, STICKY), (ROOT, STICKY)],
    ids=["open", "sticky", "root"],
)
@pytest.mark.parametrize("places", ["porch", "room", "porch and room"])
@each_plant
@pytest.mark.leaves_orphans  # which are the attacker's
def test_what_stands_in_the_place_of_slots_is_passed_over(
    fs: Filesystem, plant: str, places: str, user: User, mode: int
) -> None:
    parent, private = shared(fs, mode), home(fs, user)
    named = {
        "porch": slot_names.porch(parent / NAME),
        "room": slot_names.room(parent / NAME, user.uid),
    }

    def prepare() -> list[object]:
        return [PLANTS[plant](named[place], private) for place in places.split(" and ")]

    with holding(prepare):
        # Not the contents: reading a file breaks the lease that is held on it.
        before = identities(parent)
        publish_all(parent, user)
        after = identities(parent)
    if "room" in places and plant in ("empty folder", "locked folder"):
        # A room is removed if it is empty, which rmdir(2) tells, whoever has made it: nothing is lost but the name.
        for known in (before, after):
            known.pop(named["room"].name, None)
    assert after == before
    private.assert_untouched()


@on_tmpfs
@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked"])
@pytest.mark.parametrize("what", ["porch", "room", "lock"])
@pytest.mark.leaves_orphans  # which are the attacker's
def test_a_hard_link_to_a_file_of_the_victims_costs_it_nothing(
    fs: Filesystem, what: str, locked: bool
) -> None:
    # Where fs.protected_hardlinks is 0 the attacker can make one, elsewhere to what it may write.
    parent, private = shared(fs, STICKY), home(fs)
    named = {
        "porch": slot_names.porch(parent / NAME),
        "room": slot_names.room(parent / NAME, VICTIM.uid),
        "lock": slot_names.lock(parent / NAME),
    }
    named[what].hardlink_to(private.file)
    if what == "room":
        # Only those who find the porch taken look for the room before their publish.
        run_as(ATTACKER, slot_names.porch(parent / NAME).mkdir)

    def prepare() -> object:
        return _lock(private.file) if locked else None

    def publish() -> None:
        for overwrite in (False, True):
            error_of(parent / NAME, overwrite)

    with holding(prepare):
        run_without_waiting(VICTIM, publish)
    private.assert_untouched()


def error_of(destination: Path, overwrite: bool = True) -> OSError | None:
    try:
        MAKING_FOLDERS["folder"](destination, overwrite=overwrite)
    except OSError as error:
        return error
    return None


@on_tmpfs
@pytest.mark.parametrize(
    ("plant", "moment"),
    [
        *((plant, "at the publish") for plant in PLANTS),
        *((plant, "in the room") for plant in ("locked file", "dangling link")),
    ],
)
@pytest.mark.leaves_orphans  # which are the attacker's
def test_what_stands_in_the_place_of_a_lock_is_an_error_and_not_a_wait(
    fs: Filesystem, plant: str, moment: str
) -> None:
    parent, private = shared(fs, STICKY), home(fs)
    destination = parent / NAME
    run_as(VICTIM, partial(MAKING_FOLDERS["folder"], destination))

    def prepare() -> object:
        if moment == "in the room":
            slot_names.porch(destination).mkdir()
        return PLANTS[plant](slot_names.lock(destination), private)

    with holding(prepare):
        before = identities(parent)
        assert isinstance(run_without_waiting(VICTIM, partial(error_of, destination)), OSError)
        assert identities(parent) == before
    private.assert_untouched()


@on_tmpfs
@each_folder
@pytest.mark.leaves_orphans  # which are the attacker's
def test_a_thousand_planted_slots_are_passed_over(fs: Filesystem, mode: int) -> None:
    parent = shared(fs, mode)
    destination = parent / NAME

    def plant() -> None:
        slot_names.porch(destination).mkdir()
        for number in range(1000):
            slot_names.room(destination, VICTIM.uid + number).mkdir()
            slot_names.foreign(destination, number=number).mkdir()
            (slot_names.room(destination, VICTIM.uid) / f"{number:016x}").mkdir()

    run_as(ATTACKER, plant)
    before = identities(parent)
    publish_all(parent, VICTIM)
    assert identities(parent) == before
