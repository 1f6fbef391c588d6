"""What version N of a file or of a tree of files is: all of it follows from a name and a number.

So a check needs no memory of what was written: it makes every version anew, and tells a complete one from a mixture.
"""

import base64
import os
import random
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

COUNT: Final = 4
"""How many versions a workload publishes; version 0 stands before the recording."""

NUMBERS: Final = range(1, COUNT + 1)

NEXT: Final = COUNT + 1
"""What the next writer publishes, in a crash state."""

FILE_MODES: Final = (0o640, 0o600, 0o644, 0o660, 0o604, 0o666)
FOLDER_MODES: Final = (0o750, 0o700, 0o755, 0o770, 0o705, 0o777)

VERSION: Final = "user.version"
KEPT: Final = "user.kept"
KEPT_VALUE: Final = b"since version 0"

_LEVELS: Final = ("", "a", "a/b", "a/b/c")
_TREE_SIZES: Final = (100, 0, 4096, 10_000, 100_000)


@dataclass(frozen=True)
class Entry:
    """One file, folder or symlink."""

    kind: int
    content: bytes = b""
    modes: tuple[int, ...] = ()
    """The permission bits that it may have; empty: any."""
    attributes: Mapping[str, bytes] | None = None
    """Its user xattrs; None: any."""


Version: TypeAlias = Mapping[str, Entry]
"""All entries by relative path; a file has one, called ""; no entry at all: nothing is there."""

MISSING: Final[Version] = {}


@lru_cache(maxsize=512)
def text(seed: str, size: int) -> bytes:
    """Returns ASCII lines of which no 4 KiB are those of another seed."""
    raw = random.Random(seed).randbytes(size)
    return base64.encodebytes(raw)[:size]


def file(content: bytes, *modes: int, attributes: Mapping[str, bytes] | None = None) -> Version:
    """Returns the version of a file."""
    return {"": Entry(stat.S_IFREG, content, modes, attributes)}


def symlink(target: str) -> Version:
    """Returns the version of a symlink."""
    return {"": Entry(stat.S_IFLNK, os.fsencode(target))}


@lru_cache(maxsize=16)
def tree(number: int) -> Version:
    """Returns 20 files on three levels below the root, an empty folder and a symlink.

    Content, modes, xattrs, where the symlink leads and two of the names change with the version.
    """
    entries = {level: _folder(number, FOLDER_MODES[number]) for level in _LEVELS}
    entries["empty"] = _folder(number, FOLDER_MODES[number])
    for position in range(20):
        name = f"{position}" if position < 18 else f"{position}-of-{number}"
        path = os.path.join(_LEVELS[position % len(_LEVELS)], name)
        content = text(f"{path} {number}", _TREE_SIZES[position % len(_TREE_SIZES)])
        mode = FILE_MODES[(number + position) % len(FILE_MODES)]
        attributes = {VERSION: str(number).encode()} if position % 3 == 0 else {}
        entries[path] = Entry(stat.S_IFREG, content, (mode,), attributes)
    entries["a/link"] = Entry(stat.S_IFLNK, f"b/{number}".encode())
    return entries


def _folder(number: int, mode: int) -> Entry:
    return Entry(stat.S_IFDIR, b"", (mode,), {VERSION: str(number).encode()})


def inside(version: Version, name: str) -> Version:
    """Returns a version as it is when it stands under `name` in a folder."""
    return {f"{name}/{path}" if path else name: entry for path, entry in version.items()}


def build(version: Version, place: Path) -> None:
    """Makes a version at `place` with ordinary calls; a folder may be there already."""
    for path, entry in sorted(version.items()):
        at = place / path if path else place
        if entry.kind == stat.S_IFDIR:
            at.mkdir(exist_ok=True)
        elif entry.kind == stat.S_IFLNK:
            at.symlink_to(os.fsdecode(entry.content))
            continue
        else:
            at.write_bytes(entry.content)
        for name, value in (entry.attributes or {}).items():
            os.setxattr(at, name, value)
    for path, entry in sorted(version.items(), reverse=True):
        if entry.modes:
            (place / path if path else place).chmod(entry.modes[0])
