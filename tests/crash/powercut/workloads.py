"""The workloads: every public way to publish, new and replacing, in both durabilities that outlast a power cut."""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Final, Literal

import seccomp

from powercut import versions
from powercut.grouping import Grouping
from powercut.interface import Workload
from powercut.moving import EXCHANGE, RENAME_OVER, RENAME_TO_NEW, Move, Moving
from powercut.publishing import Publishing, Staging
from powercut.updates import APPEND, PATCH, UPDATE
from powercut.ways import (
    BACKGROUND_WAYS,
    FILE_WAYS,
    READ_ONLY,
    SYMLINK_WAYS,
    TREE_WAYS,
    FileWay,
    Way,
)

SIZES: Final = (0, 100, 4096, 100 << 10, 1 << 20)

_DURABILITIES: Final[Sequence[Literal["full", "ordered"]]] = ("full", "ordered")
_FILES: Final = (stat.S_IFREG,) * (versions.COUNT + 1)
_FOLDERS: Final = (stat.S_IFDIR,) * (versions.COUNT + 1)
_MIXED: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG, stat.S_IFDIR)


def _sized(ways: Iterable[FileWay], sizes: Iterable[int]) -> list[Way]:
    """Returns the ways in these sizes; without content nothing tells versions apart but the metadata of their own."""
    pairs = product(ways, sizes)
    return [replace(way, length=size) for way, size in pairs if size or way.metadata != "kept"]


def _publishing(ways: Iterable[Way], staging: Staging = "unnamed") -> list[Publishing]:
    return [
        Publishing(way, replaced, durability, staging)
        for way, replaced, durability in product(ways, (False, True), _DURABILITIES)
    ]


def _replacing(ways: Iterable[Way], *, backup: bool = False) -> list[Publishing]:
    return [
        Publishing(way, replaced=True, durability=durability, backup=backup)
        for way, durability in product(ways, _DURABILITIES)
    ]


def _moving(label: str, move: Move, kinds: Sequence[int]) -> list[Moving]:
    return [Moving(label, move, kinds, durability) for durability in _DURABILITIES]


WORKLOADS: Final[Sequence[Workload]] = (
    *_publishing(_sized(FILE_WAYS, SIZES)),
    # `path` stages under a name anyway.
    *(_publishing(_sized(FILE_WAYS[:-1], (4096, 1 << 20)), "named") if seccomp.SUPPORTED else ()),
    *_publishing(_sized(FILE_WAYS[:2], (4096,)), "elsewhere"),
    *_publishing(TREE_WAYS),
    *_publishing(TREE_WAYS[:1], "elsewhere"),
    *_publishing([READ_ONLY]),
    *_publishing(SYMLINK_WAYS),
    *_moving("rename-file-new", RENAME_TO_NEW, _FILES),
    *_moving("rename-file-replace", RENAME_OVER, _FILES),
    *_moving("rename-folder-new", RENAME_TO_NEW, _FOLDERS),
    *_moving("exchange-files", EXCHANGE, _FILES),
    *_moving("exchange-folders", EXCHANGE, _FOLDERS),
    *_moving("exchange-mixed", EXCHANGE, _MIXED),
    *_publishing([APPEND, UPDATE]),
    # "r+" makes nothing new, and with nothing to displace there is neither a backup nor anything to remove.
    *_replacing([PATCH, *BACKGROUND_WAYS]),
    *_replacing([*FILE_WAYS[1:3], *TREE_WAYS[:1], APPEND, UPDATE], backup=True),
    *(
        Grouping(replaced, durability)
        for replaced, durability in product((False, True), _DURABILITIES)
    ),
)

_QUICK: Final = (
    "file-w-new-full-4096",
    "file-wb-replace-full-4096",
    "file-wb-replace-ordered-102400",
    "file-wb-replace-full-4096-named",
    "write_bytes-replace-full-0",
    "write_text-new-ordered-100",
    "path-file-replace-full-1048576",
    "path-symlink-replace-full-1000",
    "folder-new-full-tree",
    "folder-replace-full-tree",
    "folder-replace-ordered-tree",
    "folder-read-only-replace-full-tree",
    "path-folder-replace-full-tree",
    "file-a-replace-full-5000",
    "file-r+-replace-ordered-102400",
    "folder-update-replace-full-tree",
    "folder-background-replace-full-tree",
    "file-wb-replace-full-4096-backup",
    "folder-replace-ordered-tree-backup",
    "folder-update-replace-full-tree-backup",
    "rename-file-replace-full",
    "exchange-mixed-full",
    "group-new-ordered",
    "group-replace-full",
)
QUICK: Final[Sequence[Workload]] = tuple(each for each in WORKLOADS if each.name in _QUICK)
"""A few that meet every way and every publishing call once: what CI cuts."""
