"""The recipes that people write by hand, and the libraries that they use, cut like this one.

Their verdicts are printed, never asserted. The libraries are those of `requirements-peers.in`; `ATOMIK_PEERS` names the
folder that they were installed to (`pip install --target`), and one that is not there is skipped with a reason.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Final

import atomik

from powercut import versions, ways
from powercut.interface import Workload
from powercut.publishing import Publishing
from powercut.versions import Version
from powercut.ways import FileWay, How, TreeWay

FOLDER_VARIABLE: Final = "ATOMIK_PEERS"


@dataclass
class Peer(Publishing):
    """Another way to publish: judged by the content only, and free to leave what it wants beside it."""

    module: str | None = None
    """The library that it needs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = f"peer-{self.name}"

    def _check_beside(self, here: Path, newest: int) -> list[str]:
        del here, newest
        return []


def unavailable(module: str | None) -> str | None:
    """Says why a library cannot be tried here; None if it can."""
    if module is None:
        return None
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return f"{FOLDER_VARIABLE} does not name the folder that {module} is installed in"
    return None if _find(module) else f"{module} is not installed in {folder}"


def load(module: str) -> Any:
    """Imports a library from the peers' folder, under a name of its own: one of them is called `atomik`, too."""
    alias = f"_peer_{module}"
    if alias not in sys.modules:
        found = _find(module)
        assert found is not None, unavailable(module)
        assert found.origin is not None
        spec = importlib.util.spec_from_file_location(
            alias, found.origin, submodule_search_locations=found.submodule_search_locations
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[alias] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[alias])
    return sys.modules[alias]


def _find(module: str) -> ModuleSpec | None:
    return PathFinder.find_spec(module, [os.environ[FOLDER_VARIABLE]])


# Recipes for a file.


def plain(place: Path, content: bytes, _: int, how: How) -> None:
    del how
    with open(place, "wb") as file:
        file.write(content)


def replace_without_sync(place: Path, content: bytes, _: int, how: How) -> None:
    _replace(place, content, sync_file=False, sync_folder=False, how=how)


def replace_with_synced_file(place: Path, content: bytes, _: int, how: How) -> None:
    _replace(place, content, sync_file=True, sync_folder=False, how=how)


def replace_with_synced_file_and_folder(place: Path, content: bytes, _: int, how: How) -> None:
    _replace(place, content, sync_file=True, sync_folder=True, how=how)


def _replace(place: Path, content: bytes, *, sync_file: bool, sync_folder: bool, how: How) -> None:
    del how
    staging = place.with_name(f"{place.name}.tmp")
    with open(staging, "wb") as file:
        file.write(content)
        if sync_file:
            file.flush()
            os.fsync(file.fileno())
    os.replace(staging, place)
    if sync_folder:
        fd = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# For comparison, by the same measure.


def this_atomik_folder(place: Path, version: Version, how: How) -> None:
    with atomik.folder(place, **how) as new:
        versions.build(version, new)


# Libraries, called as their documentation shows first.


def atomicwrites(place: Path, content: bytes, _: int, how: How) -> None:
    with load("atomicwrites").atomic_write(place, mode="wb", overwrite=how["overwrite"]) as file:
        file.write(content)


def safer(place: Path, content: bytes, _: int, how: How) -> None:
    del how
    with load("safer").open(place, "wb") as file:
        file.write(content)


def safer_with_file(place: Path, content: bytes, _: int, how: How) -> None:
    del how
    with load("safer").open(place, "wb", temp_file=True) as file:
        file.write(content)


def atomicwriter(place: Path, content: bytes, _: int, how: How) -> None:
    with load("atomicwriter").AtomicWriter(place, overwrite=how["overwrite"]) as file:
        file.write_bytes(content)


def atomicfile(place: Path, content: bytes, _: int, how: How) -> None:
    del how
    with load("atomicfile").AtomicFile(str(place), "wb") as file:
        file.write(content)


def first_atomik_file(place: Path, content: bytes, _: int, how: How) -> None:
    first = load("atomik")
    # Its staging folder is /tmp unless told, and no rename leads from there.
    with first.file(place, first.Mode.BYTES, how["overwrite"], place.parent) as file:
        file.write(content)


def first_atomik_folder(place: Path, version: Version, how: How) -> None:
    with load("atomik").folder(place, how["overwrite"], place.parent) as new:
        versions.build(version, new)


@dataclass(frozen=True)
class _BareTree(TreeWay):
    """A tree of which only the content is looked at."""

    def version(self, number: int, *, replaced: bool) -> Version:
        whole = super().version(number, replaced=replaced)
        return {path: _bare(entry) for path, entry in whole.items()}


def _bare(entry: versions.Entry) -> versions.Entry:
    return versions.Entry(entry.kind, entry.content)


def _of(
    name: str, call: Callable[[Path, bytes, int, How], Any], module: str | None = None
) -> list[Peer]:
    sizes = (4096, 100 << 10)
    return [
        Peer(FileWay(name, call, "any", size), replaced, "full", module=module)
        for size in sizes
        for replaced in (False, True)
    ]


def _folders(
    name: str, call: Callable[[Path, Version, How], None], module: str | None = None
) -> list[Peer]:
    way = _BareTree(name, call, keeps=False)
    return [Peer(way, replaced, "full", module=module) for replaced in (False, True)]


_ALL: Final = (
    *_of("this-atomik-file", ways.write_bytes),
    *_folders("this-atomik-folder", this_atomik_folder),
    *_of("open-write", plain),
    *_of("replace-unsynced", replace_without_sync),
    *_of("replace-synced-file", replace_with_synced_file),
    *_of("replace-synced-both", replace_with_synced_file_and_folder),
    *_of("atomicwrites", atomicwrites, "atomicwrites"),
    *_of("safer", safer, "safer"),
    *_of("safer-temp-file", safer_with_file, "safer"),
    *_of("atomicwriter", atomicwriter, "atomicwriter"),
    *_of("atomicfile", atomicfile, "atomicfile"),
    *_of("first-atomik-file", first_atomik_file, "atomik"),
    *_folders("first-atomik-folder", first_atomik_folder, "atomik"),
)

PEERS: Final[Sequence[Workload]] = tuple(peer for peer in _ALL if unavailable(peer.module) is None)

SKIPPED: Final[Mapping[str, str]] = {
    peer.name: reason for peer in _ALL if (reason := unavailable(peer.module)) is not None
}
"""Why the others are not among them."""
