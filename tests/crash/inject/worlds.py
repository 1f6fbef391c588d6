"""What is there before and after an operation, built with the plain calls of the system.

A world is a folder in which an operation works.
"""

import fcntl
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from support import slot_names as names

Build: TypeAlias = Callable[[Path], None]
State: TypeAlias = dict[str, tuple[int, bytes, Mapping[str, bytes]]]

DESTINATION: Final = "destination"
ELSEWHERE: Final = "elsewhere"
OTHER: Final = "other"
BACKUP: Final = "before"
IN_ROOM: Final = "0123456789abcdef"
_ATTRIBUTE: Final = "user.kept"
_VALUE: Final = b"value"
_SLOT_MODE: Final = 0o700


def look(here: Path, *, slots: bool = False) -> State:
    """Returns all that is in a world, and its modes, or (`slots`) the library's names there instead."""
    found: State = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for entry in os.scandir(here / folder):
            name = os.path.join(folder, entry.name)
            ours = entry.name.startswith(".atomik-") or _is_room(folder)
            if ours is not slots:
                if slots and folder == "" and entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                continue
            found[name] = _entry(entry)
            # What is in a slot in a room is its owner's concern.
            if entry.is_dir(follow_symlinks=False) and not _is_room(folder):
                pending.append(name)
    return found


def _is_room(folder: str) -> bool:
    return folder.rpartition("/")[2].startswith(".atomik-u")


def _entry(entry: "os.DirEntry[str]") -> tuple[int, bytes, Mapping[str, bytes]]:
    kept = {
        name: os.getxattr(entry.path, name, follow_symlinks=False)
        for name in os.listxattr(entry.path, follow_symlinks=False)
        # SELinux and the like name every file for themselves.
        if name.startswith("user.")
    }
    content = Path(entry.path).read_bytes() if entry.is_file(follow_symlinks=False) else b""
    return entry.stat(follow_symlinks=False).st_mode, content, kept


def _write(path: Path, content: bytes, mode: int | None = None) -> None:
    path.write_bytes(content)
    if mode is not None:
        path.chmod(mode)


def fill(folder: Path, version: bytes) -> None:
    # With as few system calls as it takes: each of them is made to fail.
    inner = os.path.join(folder, "inner")
    os.mkdir(inner)
    for name in ("one", "inner/two"):
        fd = os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(fd, version)
        finally:
            os.close(fd)


def _keep_metadata(path: Path, mode: int) -> None:
    path.chmod(mode)
    os.setxattr(path, _ATTRIBUTE, _VALUE)


def nothing(_: Path) -> None:
    """Is a world in which nothing is there yet."""


def file(version: bytes, *, kept: bool = False) -> Build:
    """Has a file as destination; `kept`: with the old version's mode and attributes."""

    def build(here: Path) -> None:
        _write(here / DESTINATION, version, 0o644)
        if kept:
            _keep_metadata(here / DESTINATION, 0o640)

    return build


def folder(version: bytes, *, kept: bool = False, mode: int = 0o750) -> Build:
    """Has a folder as destination; `kept`: with the old version's mode and attributes."""

    def build(here: Path) -> None:
        (here / DESTINATION).mkdir()
        fill(here / DESTINATION, version)
        if kept:
            _keep_metadata(here / DESTINATION, mode)

    return build


def updated_folder(here: Path) -> None:
    """Has the folder that an update of one file in it leaves."""
    folder(b"old", kept=True)(here)
    (here / DESTINATION / "one").write_bytes(b"new")


def with_backup(live: Build, backup: Build) -> Build:
    """Adds what another version's build makes, as the backup."""

    def both(here: Path) -> None:
        backup(here)
        (here / DESTINATION).rename(here / BACKUP)
        live(here)

    return both


def two_files(one: bytes | None, other: bytes | None) -> Build:
    def build(here: Path) -> None:
        for name, content in ((DESTINATION, one), (OTHER, other)):
            if content is not None:
                _write(here / name, content, 0o644)

    return build


def two_folders(one: bytes, other: bytes) -> Build:
    def build(here: Path) -> None:
        for name, content in ((DESTINATION, one), (OTHER, other)):
            (here / name).mkdir()
            fill(here / name, content)

    return build


GROUPED: Final = (DESTINATION, "beside/file", "beside/folder")
"""The destinations of a group: files and, in another parent, a folder, too."""


def grouped(version: bytes | None) -> Build:
    """Has all destinations of a group, or with None only their parents."""

    def build(here: Path) -> None:
        (here / "beside").mkdir()
        if version is not None:
            one, two, tree = (here / name for name in GROUPED)
            tree.mkdir()
            fill(tree, version)
            for path in (one, two):
                _write(path, version, 0o644)

    return build


def grouped_files(here: Path) -> None:
    """Has the files of a group, without its folder."""
    grouped(None)(here)
    for name in GROUPED[:2]:
        _write(here / name, b"new", 0o644)


def with_tmp_dir(build: Build) -> Build:
    def both(here: Path) -> None:
        build(here)
        (here / ELSEWHERE).mkdir()

    return both


def porch(here: Path) -> Path:
    """Returns where the first writer's slot is."""
    return names.porch(here / DESTINATION)


def in_room(here: Path) -> Path:
    """Returns where another writer's slot is."""
    return names.room(here / DESTINATION) / IN_ROOM


def _fill_slot(slot: Path) -> None:
    slot.parent.mkdir(_SLOT_MODE, exist_ok=True)
    slot.mkdir(_SLOT_MODE)
    (slot / DESTINATION).mkdir()
    (slot / DESTINATION / "file").write_bytes(b"another's")


def with_orphans(build: Build) -> Build:
    """Adds what killed writers have left: a file in the porch, and a folder slot and a file in the room."""

    def all_(here: Path) -> None:
        build(here)
        porch(here).write_bytes(b"orphan")
        _fill_slot(in_room(here))
        in_room(here).with_name("fedcba9876543210").write_bytes(b"orphan")

    return all_


def with_neighbour(build: Build, slot: Callable[[Path], Path] = porch) -> Build:
    """Adds the slot of a writer that is still in its body, as `alive` and `alive_in_room` say."""

    def both(here: Path) -> None:
        build(here)
        _fill_slot(slot(here))

    return both


def with_waiting(live: Build, waiting: Build) -> Build:
    """Adds a slot of nobody's with another version, with which the destination can be exchanged."""

    def both(here: Path) -> None:
        waiting(here)
        slot = porch(here)
        slot.mkdir(_SLOT_MODE)
        (here / DESTINATION).rename(slot / DESTINATION)
        live(here)

    return both


@contextmanager
def alive(here: Path) -> Generator[None]:
    """Holds the lock by which the owner of the porch is known to be alive."""
    with _locked(porch(here)):
        yield


@contextmanager
def alive_in_room(here: Path) -> Generator[None]:
    """Holds the lock by which the owner of a slot in the room is known to be alive."""
    with _locked(in_room(here)):
        yield


@contextmanager
def _locked(slot: Path) -> Generator[None]:
    fd = os.open(slot, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
