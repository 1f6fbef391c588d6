"""How much the comparison does: for figures, and for a look whether it runs."""

from dataclasses import dataclass
from typing import Final

SMALL: Final = 4 << 10
"""Size of the files of groups and folders."""

_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True)
class Size:
    """A size of file, and how many replacements make one sample: without a sync, and with."""

    bytes: int
    unsynced: int
    synced: int
    rounds: int

    def __str__(self) -> str:
        size, unit = next((unit for unit in _UNITS if self.bytes >= unit[0]), _UNITS[-1])
        return f"{self.bytes // size} {unit}"


@dataclass(frozen=True)
class Tree:
    """A folder of files, and how often it is made."""

    files: int
    folders: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.files:,} files" + (f" in {self.folders:,}" if self.folders else "")


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    sizes: tuple[Size, ...]
    large: Size
    """Written whole and in pieces, and too slow for the durability between."""
    group: Tree
    folders: tuple[Tree, ...]
    removals: tuple[Tree, ...]
    growth: tuple[Tree, ...]
    openings: int
    """How many snapshots make one sample."""
    clones: tuple[Tree, ...]
    cloned: Size
    displaced: tuple[Tree, ...]
    patience: int
    """Folders of more files are not synced one by one."""


REAL: Final = Scale(
    sizes=(Size(0, 200, 20, 9), Size(SMALL, 200, 20, 9), Size(1 << 20, 20, 5, 7)),
    large=Size(256 << 20, 1, 1, 3),
    group=Tree(1_000, 0, 3),
    folders=(Tree(10, 0, 15), Tree(2_000, 20, 5), Tree(100_000, 1_000, 3)),
    removals=(Tree(2_000, 20, 7), Tree(100_000, 1_000, 3), Tree(100_000, 0, 3)),
    growth=(Tree(1_000, 10, 2), Tree(10_000, 100, 2), Tree(100_000, 1_000, 2)),
    openings=200,
    clones=(Tree(20_000, 200, 3), Tree(20_000, 0, 3)),
    cloned=Size(1 << 30, 1, 1, 3),
    displaced=(Tree(10, 0, 9), Tree(1_000, 10, 9), Tree(100_000, 1_000, 3)),
    patience=2_000,
)
QUICK: Final = Scale(
    sizes=(Size(0, 5, 2, 1), Size(SMALL, 5, 2, 1), Size(64 << 10, 2, 1, 1)),
    large=Size(3 << 20, 1, 1, 1),
    group=Tree(20, 0, 1),
    folders=(Tree(10, 0, 1), Tree(40, 4, 1)),
    removals=(Tree(40, 4, 1), Tree(40, 0, 1)),
    growth=(Tree(10, 1, 1), Tree(20, 2, 1), Tree(40, 4, 1)),
    openings=3,
    clones=(Tree(20, 2, 1), Tree(20, 0, 1)),
    cloned=Size(3 << 20, 1, 1, 1),
    displaced=(Tree(10, 0, 1), Tree(40, 4, 1)),
    patience=40,
)
