"""Moves of what is complete already. `rename` and `exchange` sync nothing themselves.

A workload called "full" syncs the folder itself, as a program does that needs to know; "ordered" does not, and after a
cut the folder looks as it did before or after some of the moves.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import atomik

from powercut import checks, versions
from powercut.interface import Returned
from powercut.versions import FILE_MODES, NUMBERS, Entry, Version


@dataclass(frozen=True)
class Move:
    """One step, from what stands beside `live` and is numbered, and what follows from so many of them."""

    step: Callable[[Path, int], None]
    after: Callable[[int], dict[str, int]]
    """Which version stands where after so many steps."""


@dataclass
class Moving:
    """Four moves in one folder that holds a version 0 and four new ones, complete from the beginning."""

    label: str
    move: Move
    kinds: Sequence[int]
    """The type of each version: file, folder or symlink."""
    durability: Literal["full", "ordered"]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.label}-{self.durability}"

    def prepare(self, here: Path) -> None:
        versions.build(self._arrangement(0), here / "parent")

    def run(self, here: Path, returned: Returned) -> None:
        for number in NUMBERS:
            self.move.step(here / "parent", number)
            if self.durability == "full":
                _sync(here / "parent")
            returned(str(number))

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        newest = max(map(int, returned), default=0)
        arrangements = {number: self._arrangement(number) for number in range(versions.COUNT + 1)}
        at_least = newest if self.durability == "full" else 0
        return checks.judge(here / "parent", arrangements, at_least, newest + 1).problems

    def _arrangement(self, moves: int) -> Version:
        whole: dict[str, Entry] = {"": Entry(stat.S_IFDIR)}
        for name, number in self.move.after(moves).items():
            whole |= versions.inside(self._version(number), name)
        return whole

    def _version(self, number: int) -> Version:
        match self.kinds[number]:
            case stat.S_IFREG:
                content = versions.text(f"file {number}", 4096)
                return versions.file(content, FILE_MODES[number], attributes={})
            case stat.S_IFLNK:
                return versions.symlink(f"to-{number}")
            case _:
                return versions.tree(number)


def _rename_to_new(parent: Path, number: int) -> None:
    atomik.rename(parent / f"next-{number}", parent / f"new-{number}")


def _after_rename_to_new(moves: int) -> dict[str, int]:
    return {f"{'new' if number <= moves else 'next'}-{number}": number for number in NUMBERS}


def _rename_over(parent: Path, number: int) -> None:
    atomik.rename(parent / f"next-{number}", parent / "live", overwrite=True)


def _after_rename_over(moves: int) -> dict[str, int]:
    return {"live": moves} | {f"next-{number}": number for number in NUMBERS if number > moves}


def _exchange(parent: Path, number: int) -> None:
    atomik.exchange(parent / "live", parent / f"next-{number}")


def _after_exchange(moves: int) -> dict[str, int]:
    beside = {f"next-{number}": number - (number <= moves) for number in NUMBERS}
    return {"live": moves} | beside


RENAME_TO_NEW: Final = Move(_rename_to_new, _after_rename_to_new)
RENAME_OVER: Final = Move(_rename_over, _after_rename_over)
EXCHANGE: Final = Move(_exchange, _after_exchange)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
