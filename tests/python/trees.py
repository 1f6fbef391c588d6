"""What lies in a folder, as values that tests compare."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


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


Tree: TypeAlias = dict[str, Entry]


def tree(root: Path) -> Tree:
    """Returns all that lies below a folder, by relative path, following nothing."""
    return {name: _entry(root / name) for name in _names(root)}


def identities(root: Path) -> dict[str, Identity]:
    """Returns the identities of all that lies below a folder."""
    return {name: _identity(root / name) for name in _names(root)}


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


def _names(root: Path) -> list[str]:
    names: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = os.path.join(folder, entry.name)
                names.append(name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
    return sorted(names)


def _entry(path: Path) -> Entry:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    match kind:
        case stat.S_IFREG:
            content = path.read_bytes()
        case stat.S_IFLNK:
            content = os.readlink(os.fsencode(path))
        case stat.S_IFCHR | stat.S_IFBLK:
            content = str(status.st_rdev).encode()
        case _:
            content = b""
    return Entry(kind, content)


def _identity(path: Path) -> Identity:
    status = path.lstat()
    return Identity(status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
