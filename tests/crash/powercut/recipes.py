"""Recipes whose verdict is known, by which the engine itself is judged."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from powercut import fuse, linux
from powercut.interface import Returned, Workload
from powercut.publishing import Publishing
from powercut.ways import TREE_WAYS, FileWay, write_bytes

_VERSIONS: Final = 6
_SIZE: Final = 8192
_MESS: Final = bytes(range(256)) * 16  # one block
_EXT4_SUPERBLOCK: Final = slice(1024, 2048)


class Replace:
    """Replaces a file again and again by a temporary one that is renamed, with or without what makes that last."""

    def __init__(self, name: str, *, sync_file: bool, sync_folder: bool, promise: bool) -> None:
        self.name = name
        self._sync_file = sync_file
        self._sync_folder = sync_folder
        self._promise = promise

    def prepare(self, here: Path) -> None:
        (here / "file").write_bytes(_content(0))

    def run(self, here: Path, returned: Returned) -> None:
        for number in range(1, _VERSIONS + 1):
            (here / "tmp").write_bytes(_content(number))
            if self._sync_file:
                _sync(here / "tmp")
            (here / "tmp").rename(here / "file")
            if self._sync_folder:
                _sync(here)
            returned(str(number))

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        content = (here / "file").read_bytes()
        for number in range(_VERSIONS + 1):
            if content == _content(number):
                oldest = max(map(int, returned), default=0) if self._promise else 0
                return (
                    [f"lost: {number} is there, {oldest} had returned"] if number < oldest else []
                )
        return ["torn: of no version" if content else "empty: no byte of any version"]


class Overwrite:
    """Overwrites a file in place, as one write that is longer than what a disk does at once."""

    name = "overwrite"

    def prepare(self, here: Path) -> None:
        (here / "file").write_bytes(_content(0) * 4)

    def run(self, here: Path, returned: Returned) -> None:
        for number in range(1, _VERSIONS + 1):
            fd = os.open(here / "file", os.O_WRONLY)
            os.write(fd, _content(number) * 4)
            os.fsync(fd)
            os.close(fd)
            returned(str(number))

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        del returned
        return [] if len(set((here / "file").read_bytes())) == 1 else ["torn: of two versions"]


class Scribble:
    """Leaves a mess in every crash state that it checks, and looks for the mess of the one before."""

    name = "scribble"

    def prepare(self, here: Path) -> None:
        (here / "kept").write_bytes(_content(0))

    def run(self, here: Path, returned: Returned) -> None:
        for number in range(3):
            (here / f"new-{number}").write_bytes(_content(number))
            _sync(here / f"new-{number}")
            returned(str(number))

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        del returned
        problems = ["left over: the mess"] if (here / "mess").exists() else []
        problems += ["left over: its bytes"] if _holds(here.parent.parent / "state", _MESS) else []
        kept = here / "kept"
        if not kept.exists() or kept.read_bytes() != _content(0):
            problems.append("left over: a deletion")
        kept.unlink(missing_ok=True)
        (here / "mess").write_bytes(_MESS * 256)
        _sync(here / "mess")
        return problems


class Vandal:
    """Discards the superblock, through the same disk, and writes it back: between the two nothing can be mounted."""

    name = "vandal"

    def prepare(self, here: Path) -> None: ...

    def run(self, here: Path, returned: Returned) -> None:
        del returned
        disk = os.open(here.parent.parent / "disk" / fuse.IMAGE, os.O_RDWR)
        start, length = _EXT4_SUPERBLOCK.start, _EXT4_SUPERBLOCK.stop - _EXT4_SUPERBLOCK.start
        before = os.pread(disk, length, start)
        linux.punch_hole(disk, start, length)
        os.fsync(disk)
        os.pwrite(disk, before, start)
        os.fsync(disk)
        os.close(disk)

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        del here, returned
        return []


def _holds(image: Path, block: bytes) -> bool:
    with image.open("rb") as file:
        chunks = linux.data_chunks(file.fileno(), len(block))
        return any(os.pread(file.fileno(), len(block), at * len(block)) == block for at in chunks)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _content(number: int) -> bytes:
    return bytes([number + 1]) * _SIZE


RECIPES: Final[Sequence[Workload]] = (
    Replace("good", sync_file=True, sync_folder=True, promise=True),
    Replace("careless", sync_file=False, sync_folder=False, promise=False),
    Replace("hasty", sync_file=True, sync_folder=False, promise=True),
    Overwrite(),
    Scribble(),
    Vandal(),
    # This library, told not to sync. (A file that replaces another is written out by ext4 and btrfs, unasked.)
    Publishing(FileWay("write_bytes", write_bytes, "set"), replaced=False, durability="none"),
    Publishing(TREE_WAYS[0], replaced=True, durability="none"),
)
