"""Every way to publish, as one list: what is there before, what the body meets, what is there after."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import atomik
from support import publishing
from support.trees import identities, tree

OLD: Final = b"old"
THEIRS: Final = b"theirs"

DESTINATION: Final = "destination"
SOURCE: Final = "source"

State: TypeAlias = dict[str, str]
"""The version of everything in a folder, by name."""


@dataclass(frozen=True)
class Operation:
    """One call; `exists`: over an old version; `met`: another's version appears in the body."""

    call: str
    overwrite: bool = False
    exists: bool = False
    met: bool = False

    @property
    def makes_folder(self) -> bool:
        return self.call in publishing.MAKING_FOLDERS or self.call.endswith("folder")

    @property
    def moves(self) -> bool:
        """Does it move what is there, without a body and without a sync?"""
        return self.call in _MOVES

    @property
    def before(self) -> State:
        """What is there when it is refused."""
        state = {DESTINATION: "old"} if self.exists else {}
        return {**state, SOURCE: "new"} if self.moves else state

    @property
    def met_state(self) -> State:
        """What is there when it fails after its body."""
        return {DESTINATION: "theirs"} if self.met else self.before

    @property
    def after(self) -> State:
        """What is there when it succeeds."""
        new = {DESTINATION: "new"}
        return {**new, SOURCE: "old"} if self.call.startswith("exchange") else new

    def __str__(self) -> str:
        when = "replacing" if self.exists else "meeting another" if self.met else "new"
        return f"{self.call}, {when}, overwrite={self.overwrite}"


@dataclass(frozen=True)
class Outcome:
    """What came of it: the error, whether the body ran and what it saw beside, what is there after.

    `touched`: what was there before is no longer the same, to the inode and the time of change.
    """

    error: OSError | None
    body_ran: bool
    beside_body: tuple[str, ...]
    state: State
    touched: bool


def operations() -> Iterator[Operation]:
    """Lists all operations; add those to come (update, backup, group, modes "a" and "r+") here."""
    for call in publishing.ALL:
        for overwrite in (False, True):
            yield Operation(call, overwrite)
            if call not in ("write_bytes", "write_text"):
                yield Operation(call, overwrite, met=True)
        yield Operation(call, overwrite=True, exists=True)
    for call in ("rename of a file", "rename of a folder"):
        yield Operation(call)
        yield Operation(call, overwrite=True)
    # rename(2) replaces no folder that has entries.
    yield Operation("rename of a file", overwrite=True, exists=True)
    for call in ("exchange of a file", "exchange of a folder"):
        yield Operation(call, exists=True)


def run(operation: Operation, folder: Path, durability: str = "none") -> Outcome:
    """Does it in a new folder and looks at what is there afterwards."""
    folder.mkdir()
    destination = folder / DESTINATION
    for name, version in operation.before.items():
        _make(folder / name, version.encode(), operation)
    before = identities(folder)
    body_ran = False
    beside: tuple[str, ...] = ()

    def body() -> None:
        nonlocal body_ran, beside
        body_ran = True
        beside = tuple(sorted({*os.listdir(folder)} - operation.before.keys()))
        if operation.met:
            _make(destination, THEIRS, operation)

    error = None
    try:
        if operation.moves:
            _MOVES[operation.call](folder / SOURCE, destination, operation)
        else:
            options: dict[str, Any] = {"overwrite": operation.overwrite, "durability": durability}
            publishing.ALL[operation.call](destination, body, **options)
    except OSError as raised:
        error = raised
    after = identities(folder)
    touched = any(after.get(name) != identity for name, identity in before.items())
    return Outcome(error, body_ran, beside, look(folder), touched)


def look(folder: Path) -> State:
    """Says which version of what is in a folder, or describes something worse."""
    return {name: _version(folder / name) for name in sorted(os.listdir(folder))}


def _rename(source: Path, destination: Path, operation: Operation) -> None:
    atomik.rename(source, destination, overwrite=operation.overwrite)


def _exchange(source: Path, destination: Path, _: Operation) -> None:
    atomik.exchange(source, destination)


_MOVES: Final[Mapping[str, Callable[[Path, Path, Operation], None]]] = {
    "rename of a file": _rename,
    "rename of a folder": _rename,
    "exchange of a file": _exchange,
    "exchange of a folder": _exchange,
}


def _make(path: Path, version: bytes, operation: Operation) -> None:
    if not operation.makes_folder:
        path.write_bytes(version)
        return
    path.mkdir()
    if version == publishing.NEW:
        publishing.fill(path)
    else:
        (path / "only").write_bytes(version)


def _version(path: Path) -> str:
    if not stat.S_ISDIR(path.lstat().st_mode):
        content = path.read_bytes()
        return (
            content.decode() if content in (OLD, THEIRS, publishing.NEW) else f"torn: {content!r}"
        )
    found = {name: entry.content for name, entry in tree(path).items()}
    if found == {"inner": b"", "new": publishing.NEW, "inner/new": publishing.NEW}:
        return "new"
    if set(found) == {"only"} and found["only"] in (OLD, THEIRS):
        return found["only"].decode()
    return f"mixed: {found}"
