"""A filesystem that is measured: the names in its cases, the processes that work there, checks of what they did."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from contestants import Home
from figures import Row, rows
from ground import Child, Samples, Wrong
from scale import SMALL, Scale, Tree

BARE: Final = "bare system calls"
BARE_SYNCFS: Final = "bare, one syncfs"
BARE_LINKED: Final = "bare, one syncfs, linkat"
BARE_WALK: Final = "bare, fsync of each"
BARE_ONE: Final = "bare, one flush"
PLAIN: Final = "bare, in place, not atomic"
UNSYNCED: Final = "open, os.replace, no sync"
FLUSHES: Final = {how: f"{how} alone" for how in ("fdatasync", "fsync", "syncfs")}
"""The disk's share of a synced case: these calls by themselves, in the same turns and for as many bytes."""
OPENED: Final = "open, flock, close"
JOURNALS: Final = ("ext4", "xfs")
"""Where one flush is enough (docs/syncing.md)."""
LOOKED_AT: Final = 100
"""How many files of a folder are read back; all are counted."""


@dataclass
class Place:
    """A mounted filesystem, and the processes that are timed there."""

    filesystem: str
    root: Path
    scale: Scale
    bare: Child
    workers: Mapping[Home, Child]
    """One for each environment that is installed."""
    start: Callable[[], AbstractContextManager[Child]]
    """Starts a worker that has done nothing yet."""
    _numbers: Iterator[int] = field(default_factory=count)

    def new(self) -> Path:
        """Makes an empty folder."""
        path = self.root / str(next(self._numbers))
        path.mkdir()
        return path

    def seed(self) -> int:
        """Returns which byte is written next, so that no old version passes for the new one."""
        return next(self._numbers) % 255 + 1

    def fill(self, path: Path | str, tree: Tree, seed: int) -> None:
        """Fills a folder, by the same program for all contestants."""
        self.bare.ask("fill", path, tree.files, tree.folders, SMALL, seed)

    def rows(
        self, section: str, durability: str, case: object, samples: Samples, reference: str
    ) -> Iterator[Row]:
        """Yields the rows of a case."""
        yield from rows((section, self.filesystem, durability, str(case)), samples, reference)


def check_file(path: Path, size: int, seed: int) -> None:
    """Reads back a file."""
    if path.read_bytes() != bytes([seed]) * size:
        raise Wrong(f"{path.name} is not what was published")


def check_names(folder: Path, *names: str) -> None:
    """Checks that nothing else has been left."""
    if (found := sorted(os.listdir(folder))) != sorted(names):  # noqa: PTH208
        raise Wrong(f"there are {found}")


def check_tree(path: Path, tree: Tree, seed: int) -> None:
    """Counts the files of a folder, and reads back some."""
    found = [f"{below}/{name}" for below, _, names in os.walk(path) for name in names]
    if len(found) != tree.files:
        raise Wrong(f"there are {len(found)} files of {tree.files}")
    for file in found[:: max(1, tree.files // LOOKED_AT)]:
        check_file(Path(file), SMALL, seed)
