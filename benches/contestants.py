"""The contestants: each library called as its own documentation says, beside those that make the same promise.

How much is synced, by whatever name its authors give it:

- `none`: nothing. The first atomik and safer never sync.
- `file`: the content, but not the folder; after a power cut the old version may be back. boltons, durablewrite's
  "file", atomik's "ordered". atomicwriter syncs the content too, but only after the rename: a power cut between the two
  may leave an empty file.
- `full`: content and folder: what has returned, stays. atomicwrites, durablewrite's "full", atomik.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

Durability = Literal["none", "file", "full"]
Home = Literal["here", "peers", "first"]
"""Which environment has it: this project's, that of its peers, or the one of the first atomik, of the same name."""

Write = Callable[[str, Sequence[bytes]], object]
"""Replaces a file by what the pieces make together."""
Publish = Callable[[str, bool], AbstractContextManager[Any]]
"""Makes a folder, whether it replaces one or not; its body gets the path that is to be filled."""
WriteMany = Callable[[Sequence[str], bytes], object]
"""Replaces many files by the same content."""
Remove = Callable[[str], int]
"""Removes a tree, and says how many nanoseconds that took."""

_T = TypeVar("_T")
ATOMIK: Final[Mapping[Durability, Literal["none", "ordered", "full"]]] = {
    "none": "none",
    "file": "ordered",
    "full": "full",
}


@dataclass(frozen=True)
class Way(Generic[_T]):
    """One contestant. `make` imports what it needs, once."""

    name: str
    durability: Durability
    home: Home
    make: Callable[[], _T]
    pieces: bool = True
    """Takes its content in pieces, too."""


def sync_folder(path: str) -> None:
    """Syncs the names in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- Files ---


def by_hand(durability: Durability) -> Write:
    """Writes a temporary file and renames it, as people write it themselves."""

    def write(path: str, pieces: Sequence[bytes]) -> None:
        staging = path + ".tmp"
        with open(staging, "wb") as file:
            file.writelines(pieces)
            if durability != "none":
                file.flush()
                os.fsync(file.fileno())
        os.replace(staging, path)
        if durability == "full":
            sync_folder(os.path.dirname(path))

    return write


def _into(opened: Callable[[str], AbstractContextManager[Any]]) -> Write:
    def write(path: str, pieces: Sequence[bytes]) -> None:
        with opened(path) as file:
            for piece in pieces:
                file.write(piece)

    return write


def atomik_write_bytes(durability: Durability) -> Write:
    """Calls what takes the whole content at once."""
    import atomik

    how = ATOMIK[durability]
    return lambda path, pieces: atomik.write_bytes(path, pieces[0], overwrite=True, durability=how)


def atomik_file(durability: Durability) -> Write:
    """Opens a file and writes to it."""
    import atomik

    how = ATOMIK[durability]
    return _into(lambda path: atomik.file(path, "wb", True, durability=how))


def first_atomik_file() -> Write:
    """Has its staging folder beside the destination: its default is /tmp, from where no rename leads."""
    first = import_module("atomik")
    mode = first.Mode.BYTES
    return _into(lambda path: first.file(path, mode, True, os.path.dirname(path)))


def atomicwrites() -> Write:
    """Syncs the file, renames, syncs the folder."""
    atomic_write = import_module("atomicwrites").atomic_write
    return _into(lambda path: atomic_write(path, mode="wb", overwrite=True))


def atomicwriter() -> Write:
    """Renames, then syncs the file."""
    writer = import_module("atomicwriter").AtomicWriter

    def write(path: str, pieces: Sequence[bytes]) -> None:
        with writer(path, overwrite=True) as file:
            for piece in pieces:
                file.write_bytes(piece)

    return write


def boltons() -> Write:
    """Syncs the file, renames."""
    return _into(import_module("boltons.fileutils").atomic_save)


def durablewrite(durability: Durability) -> Write:
    """Calls what takes the whole content at once."""
    write_bytes_atomic = import_module("durablewrite").write_bytes_atomic
    return lambda path, pieces: write_bytes_atomic(path, pieces[0], fsync=durability)


def safer() -> Write:
    """Writes to a temporary file: by default it collects in memory, and then writes in place."""
    opened = import_module("safer").open
    return _into(lambda path: opened(path, "wb", temp_file=True))


RECIPES: Final[Mapping[Durability, str]] = {
    "none": "open, os.replace",
    "file": "os.replace, fsync",
    "full": "os.replace, 2 fsync",
}

FILES: Final[Sequence[Way[Write]]] = (
    *(
        way
        for durability, recipe in RECIPES.items()
        for way in (
            Way(recipe, durability, "here", partial(by_hand, durability)),
            Way("atomik.write_bytes", durability, "here", partial(atomik_write_bytes, durability), pieces=False),
            Way("atomik.file", durability, "here", partial(atomik_file, durability)),
            Way("durablewrite", durability, "peers", partial(durablewrite, durability), pieces=False),
        )
    ),
    Way("first atomik", "none", "first", first_atomik_file),
    Way("safer", "none", "peers", safer),
    Way("atomicwriter", "file", "peers", atomicwriter),
    Way("boltons", "file", "peers", boltons),
    Way("atomicwrites", "full", "peers", atomicwrites),
)  # fmt: skip


# --- Groups ---


def atomik_group(durability: Durability) -> WriteMany:
    """Publishes all together."""
    import atomik

    def write(paths: Sequence[str], data: bytes) -> None:
        with atomik.group(durability=ATOMIK[durability]) as group:
            for path in paths:
                group.write_bytes(path, data, overwrite=True)

    return write


def one_by_one(way: Way[Write]) -> WriteMany:
    """Publishes each by itself."""
    write = way.make()

    def write_many(paths: Sequence[str], data: bytes) -> None:
        pieces = [data]
        for path in paths:
            write(path, pieces)

    return write_many


GROUPS: Final[Sequence[Way[WriteMany]]] = (
    Way("atomik.group", "none", "here", partial(atomik_group, "none")),
    Way("atomik.group", "full", "here", partial(atomik_group, "full")),
    *(
        Way(way.name, way.durability, way.home, partial(one_by_one, way))
        for way in FILES
        if way.name != "atomik.file" and way.durability != "file"
    ),
)


# --- Folders ---


@contextmanager
def folder_by_hand(path: str, replaces: bool, durability: Durability) -> Iterator[str]:
    """Fills a folder and renames it; where one is to be replaced, the name is missing for a moment."""
    staging, old = path + ".tmp", path + ".old"
    os.mkdir(staging)
    yield staging
    if durability == "full":
        for below, _, names in os.walk(staging, topdown=False):
            for name in names:
                sync_file(os.path.join(below, name))
            sync_folder(below)
    if replaces:
        os.rename(path, old)
    os.rename(staging, path)
    if durability == "full":
        sync_folder(os.path.dirname(path))
    if replaces:
        shutil.rmtree(old)


def sync_file(path: str) -> None:
    """Syncs a file that another process has written."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def atomik_folder(durability: Durability) -> Publish:
    """Publishes a folder, and removes the one that it replaces."""
    import atomik

    how = ATOMIK[durability]
    return lambda path, _replaces: atomik.folder(path, overwrite=True, durability=how)


def first_atomik_folder() -> Publish:
    """Exchanges only what is there."""
    folder = import_module("atomik").folder
    return lambda path, replaces: folder(path, replaces, os.path.dirname(path))


FOLDERS: Final[Sequence[Way[Publish]]] = (
    Way("os.rename", "none", "here", lambda: partial(folder_by_hand, durability="none")),
    Way("fsync of each, os.rename", "full", "here", lambda: partial(folder_by_hand, durability="full")),
    Way("atomik.folder", "none", "here", partial(atomik_folder, "none")),
    Way("atomik.folder", "full", "here", partial(atomik_folder, "full")),
    Way("first atomik", "none", "first", first_atomik_folder),
)  # fmt: skip


# --- Removals ---


def nanoseconds(do: Callable[[], object]) -> int:
    """Does something and says how long it took."""
    start = time.perf_counter_ns()
    do()
    return time.perf_counter_ns() - start


def displace() -> Remove:
    """Has atomik replace a folder by an empty one, and times nothing but the commit: an exchange, and the removal."""
    import atomik

    def remove(path: str) -> int:
        with (new := atomik.folder(path, overwrite=True, durability="none")):
            took = nanoseconds(new.commit)
        Path(path).rmdir()
        return took

    return remove


def rm() -> Remove:
    """Runs the program."""
    return lambda path: nanoseconds(partial(subprocess.run, ["rm", "-rf", path], check=True))


def rmtree() -> Remove:
    """Calls the standard library."""
    return lambda path: nanoseconds(partial(shutil.rmtree, path))


REMOVALS: Final[Sequence[Way[Remove]]] = (
    Way("rm -rf", "none", "here", rm),
    Way("shutil.rmtree", "none", "here", rmtree),
    Way("atomik, displaced", "none", "here", displace),
)
