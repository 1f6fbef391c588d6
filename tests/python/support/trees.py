"""What lies in a folder, as values that tests compare."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from support import xattrs


@dataclass(frozen=True)
class Entry:
    """One file, folder or other thing: what it is and what is in it."""

    kind: int
    content: bytes


@dataclass(frozen=True)
class Identity:
    """What also changes when a thing is replaced by an equal one, or touched."""

    inode: int
    mode: int
    owner: int
    group: int
    modified: int


@dataclass(frozen=True)
class Described:
    """All of one file, folder or other thing that a copy has to have."""

    mode: int
    owner: tuple[int, int]
    modified: int
    digest: bytes
    attributes: dict[str, bytes]
    links: tuple[str, ...]
    """The names of the same file in this tree."""


Tree: TypeAlias = dict[str, Entry]


def tree(root: Path) -> Tree:
    """Returns all that lies below a folder, by relative path, following nothing."""
    return {
        name: Entry(stat.S_IFMT(status.st_mode), _content(root / name, status))
        for name, status in _found(root).items()
    }


def identities(root: Path) -> dict[str, Identity]:
    """Returns the identities of all that lies below a folder."""
    return {
        name: Identity(
            status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns
        )
        for name, status in _found(root).items()
    }


def inodes(root: Path) -> set[tuple[int, int]]:
    """Returns which inodes lie below a folder."""
    return {(status.st_dev, status.st_ino) for status in _found(root).values()}


def describe(root: Path) -> dict[str, Described]:
    """Describes all that lies below a folder, by relative path."""
    found = _found(root)
    links: dict[int, list[str]] = defaultdict(list)
    for name, status in found.items():
        if not stat.S_ISDIR(status.st_mode):
            links[status.st_ino].append(name)
    return {
        name: _described(root / name, status, status.st_mtime_ns, links[status.st_ino])
        for name, status in found.items()
    }


def describe_one(path: Path) -> Described:
    """Describes a file or folder by itself; a name of its own is no part of it.

    Nor is the time of a folder: on xfs it changes when the folder moves to another one.
    """
    status = path.lstat()
    return _described(path, status, 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns, ())


def subtree(whole: Tree, name: str) -> Tree:
    """Returns the part of a tree that is `name` itself or below it, relative to `name`."""
    return {key[len(name) :]: entry for key, entry in whole.items() if is_in(key, name)}


def without(whole: Tree, *names: str) -> Tree:
    """Returns a tree without these names and what is below them."""
    return {
        key: entry for key, entry in whole.items() if not any(is_in(key, name) for name in names)
    }


def placed(part: Tree, name: str) -> Tree:
    """Returns what `subtree` returned, as it is when it is called `name`."""
    return {name + key: entry for key, entry in part.items()}


def is_in(key: str, name: str) -> bool:
    return key == name or key.startswith(name + "/")


def _found(root: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = os.path.join(folder, entry.name)
                # Not what scandir has cached: a FUSE client's may be old.
                found[name] = os.lstat(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
    return dict(sorted(found.items()))


def _content(path: Path, status: os.stat_result) -> bytes:
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFREG:
            return path.read_bytes()
        case stat.S_IFLNK:
            return os.readlink(os.fsencode(path))
        case stat.S_IFCHR | stat.S_IFBLK:
            return str(status.st_rdev).encode()
        case _:
            return b""


def _described(
    path: Path, status: os.stat_result, modified: int, links: Sequence[str]
) -> Described:
    none = stat.S_ISLNK(status.st_mode) or stat.S_ISFIFO(status.st_mode)
    return Described(
        status.st_mode,
        (status.st_uid, status.st_gid),
        modified,
        hashlib.sha256(_content(path, status)).digest(),
        {} if none else xattrs.attributes(path),
        tuple(sorted(links)),
    )
