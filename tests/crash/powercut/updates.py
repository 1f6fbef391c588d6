"""The ways that start from the present version: each new one is that of before, with a part of its own.

What version N is follows from the versions that it was built upon, one upon the other: here all before it, and after a
power cut whichever one was there.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Final

import atomik

from powercut import versions
from powercut.versions import FILE_MODES, FOLDER_MODES, KEPT, KEPT_VALUE, MISSING, NEXT, Version
from powercut.ways import MODES_BY_UMASK, How

_STEPS: Final = 3
"""An update of a tree changes about one in so many of its entries."""


def _history(number: int, *, replaced: bool) -> list[int]:
    """Names the versions that `number` consists of: all before it, or where nothing is replaced, itself."""
    if replaced:
        return list(range(number + 1))
    return [number] if number else []


@dataclass(frozen=True)
class EditWay:
    """A mode of `file` that starts from the present content, and what a new version makes of it."""

    name: str
    call: Callable[[Path, int, bytes, How], None]
    edited: Callable[[bytes, int, bytes], bytes]
    length: int

    @property
    def size(self) -> str:
        return str(self.length)

    def version(self, number: int, *, replaced: bool) -> Version:
        return self._after(_history(number, replaced=replaced), replaced=replaced)

    def next_version(self, base: int, *, replaced: bool) -> Version:
        return self._after([*_history(base, replaced=replaced), NEXT], replaced=replaced)

    def _after(self, numbers: Sequence[int], *, replaced: bool) -> Version:
        content = b""
        for number in numbers:
            piece = self._piece(number)
            content = self.edited(content, number, piece) if number else piece
        modes, kept = ((FILE_MODES[0],), {KEPT: KEPT_VALUE}) if replaced else (MODES_BY_UMASK, {})
        return versions.file(content, *modes, attributes=kept)

    def _piece(self, number: int) -> bytes:
        return versions.text(f"file {number}", self.length)

    def publish(self, place: Path, number: int, how: How) -> None:
        self.call(place, number, self._piece(number), how)


def _append(place: Path, _: int, piece: bytes, how: How) -> None:
    with atomik.file(place, "ab", **how) as new:
        new.write(piece)


def _patch(place: Path, number: int, piece: bytes, how: How) -> None:
    where = _patched(number, len(piece))
    with atomik.file(place, "r+b", **how) as new:
        new.seek(where.start)
        new.write(piece[where])


def _patched(number: int, length: int) -> slice:
    """Returns where a version changes a file: a fifth of it, which ends within a block."""
    part = length // (NEXT + 1)
    return slice(number * part, (number + 1) * part)


def _after_patch(content: bytes, number: int, piece: bytes) -> bytes:
    where = _patched(number, len(piece))
    return content[: where.start] + piece[where] + content[where.stop :]


@dataclass(frozen=True)
class UpdateWay:
    """`folder(update=True)`: changes, adds and removes a part of a tree of 20 files."""

    name: str = "folder-update"
    size: str = "tree"

    def version(self, number: int, *, replaced: bool) -> Version:
        return _after_updates(tuple(_history(number, replaced=replaced)), replaced=replaced)

    def next_version(self, base: int, *, replaced: bool) -> Version:
        numbers = (*_history(base, replaced=replaced), NEXT)
        return _after_updates(numbers, replaced=replaced)

    def publish(self, place: Path, number: int, how: How) -> None:
        with atomik.folder(place, update=True, permissions=FOLDER_MODES[number], **how) as new:
            _update(new, number)


@lru_cache(maxsize=64)
def _after_updates(numbers: Sequence[int], *, replaced: bool) -> Version:
    tree = reduce(_updated, numbers, MISSING)
    kept = {KEPT: KEPT_VALUE} if replaced else {}
    root = replace(versions.tree(numbers[-1])[""], attributes=kept)
    return {**tree, "": root}


def _updated(base: Version, number: int) -> Version:
    whole = versions.tree(number)
    if not base:
        return whole
    kept = {path: entry for path, entry in base.items() if path in whole}
    return {**kept, **_changes(number)}


def _changes(number: int) -> Version:
    """Returns what an update writes: some entries by turns, and those that only this version has."""
    below = sorted(path for path in versions.tree(number) if path)
    return {
        path: versions.tree(number)[path]
        for at, path in enumerate(below)
        if at % _STEPS == number % _STEPS or path.endswith(f"-of-{number}")
    }


def _update(folder: Path, number: int) -> None:
    whole = versions.tree(number)
    changes = _changes(number) if os.listdir(folder) else whole
    for at in sorted(folder.rglob("*"), reverse=True):
        path = str(at.relative_to(folder))
        if path not in whole or (stat.S_ISLNK(whole[path].kind) and path in changes):
            at.unlink()
    # In place, where a file is there already: what is written must be the copy, not the version that it was made of.
    versions.build({path: entry for path, entry in changes.items() if path}, folder)


APPEND: Final = EditWay("file-a", _append, lambda content, _, piece: content + piece, 5000)
PATCH: Final = EditWay("file-r+", _patch, _after_patch, 100 << 10)
UPDATE: Final = UpdateWay()
