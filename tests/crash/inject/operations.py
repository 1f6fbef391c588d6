"""The public operations as plain data: what is there before, the call, and what it should make."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import atomik
from support import kernel

from inject.worlds import (
    BACKUP,
    DESTINATION,
    ELSEWHERE,
    GROUPED,
    OTHER,
    Build,
    alive,
    alive_in_room,
    file,
    fill,
    folder,
    grouped,
    grouped_files,
    in_room,
    nothing,
    porch,
    two_files,
    two_folders,
    updated_folder,
    with_backup,
    with_neighbour,
    with_orphans,
    with_tmp_dir,
    with_waiting,
)

AnyGuard: TypeAlias = "atomik.File[Any] | atomik.Folder | atomik.Entry | atomik.Group"
Keep: TypeAlias = Callable[[AnyGuard], AnyGuard]


@dataclass(frozen=True)
class Operation:
    """One call: `run` turns the world that `old` builds into the one that `new` builds.

    `ends_in` is the exception with which it ends even if no call fails. `needs` are the flags of
    renameat2(2) without which it is refused, or (`by_hand`) cannot be tried. `halfway` is the one
    state between the two that the documentation names. `neighbour` keeps another writer alive, from
    before a run until after it. `elsewhere`: is it asked for other calls on another filesystem than
    ext4, so that it is worth its time there?

    `destinations` are more than one if it is a group: a kill may leave some of them old and some new.

    Durability is "full" everywhere, the default: it asks the kernel for most.
    """

    name: str
    old: Build
    run: Callable[[Path, Keep], None]
    new: Build
    ends_in: str | None = None
    needs: int = 0
    by_hand: bool = False
    elsewhere: bool = True
    halfway: Build | None = None
    destinations: Sequence[str] = (DESTINATION,)
    neighbour: Callable[[Path], AbstractContextManager[object]] = nullcontext

    @property
    def has_neighbour(self) -> bool:
        return self.neighbour is not nullcontext

    def can_be_tried(self, flags: int) -> bool:
        """Says whether it means anything on a filesystem that has these flags."""
        return not self.by_hand or self.needs & flags == self.needs

    def on(self, flags: int) -> "Operation":
        """Returns what it is on a filesystem that has these flags: perhaps a refusal."""
        if self.needs & flags == self.needs:
            return self
        return replace(self, new=self.old, ends_in="UnsupportedFilesystemError")


def _file(mode: atomik.OpenMode, content: Any, **options: Any) -> Callable[[Path, Keep], None]:
    def run(here: Path, keep: Keep) -> None:
        guard = atomik.file(here / DESTINATION, mode, **options, **_encoding(mode))
        keep(guard)
        with guard as staging:
            staging.write(content)

    return run


def _encoding(mode: str) -> dict[str, Any]:
    return {} if "b" in mode else {"encoding": "utf-8"}


def _write_bytes(here: Path, _: Keep, **options: Any) -> None:
    atomik.write_bytes(here / DESTINATION, b"new", **options)


def _write_text(here: Path, _: Keep, **options: Any) -> None:
    atomik.write_text(here / DESTINATION, "new", encoding="utf-8", **options)


def _folder(here: Path, keep: Keep, **options: Any) -> None:
    guard = atomik.folder(here / DESTINATION, **options)
    keep(guard)
    with guard as staging:
        fill(staging, b"new")


def _path_to_file(here: Path, keep: Keep, **options: Any) -> None:
    guard = atomik.path(here / DESTINATION, **options)
    keep(guard)
    with guard as staging:
        fd = os.open(staging, os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(fd, b"new")
        finally:
            os.close(fd)


def _path_to_folder(here: Path, keep: Keep, **options: Any) -> None:
    guard = atomik.path(here / DESTINATION, **options)
    keep(guard)
    with guard as staging:
        os.mkdir(staging)
        fill(staging, b"new")


def _update(here: Path, keep: Keep) -> None:
    guard = atomik.folder(here / DESTINATION, update=True)
    keep(guard)
    with guard as staging:
        fd = os.open(staging / "one", os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, b"new")
        finally:
            os.close(fd)


def _read_while_displaced(here: Path, _: Keep) -> None:
    """Is the last reader of a version: it removes what was displaced under its hands."""
    with atomik.snapshot(here / DESTINATION):
        atomik.exchange(here / DESTINATION, porch(here) / DESTINATION)


def _rename(here: Path, _: Keep, **options: Any) -> None:
    atomik.rename(here / OTHER, here / DESTINATION, **options)


def _exchange(here: Path, _: Keep) -> None:
    atomik.exchange(here / DESTINATION, here / OTHER)


def _group(here: Path, keep: Keep, *, overwrite: bool = False) -> None:
    one, two, tree = (here / name for name in GROUPED)
    group = atomik.group()
    keep(group)
    with group:
        group.write_bytes(one, b"new", overwrite=overwrite)
        with group.file(two, "wb", overwrite=overwrite) as file:
            file.write(b"new")
        with group.folder(tree, overwrite=overwrite) as staging:
            fill(staging, b"new")


def _group_of_files(here: Path, keep: Keep) -> None:
    one, two, _ = (here / name for name in GROUPED)
    group = atomik.group()
    keep(group)
    with group:
        group.write_bytes(one, b"new")
        group.write_bytes(two, b"new")


def _group_rolled_back(here: Path, keep: Keep) -> None:
    one, _, tree = (here / name for name in GROUPED)
    group = atomik.group()
    keep(group)
    with group:
        with group.folder(tree, overwrite=True) as staging:
            fill(staging, b"half")
        group.write_bytes(one, b"half", overwrite=True)
        raise LookupError("in the body")


def _with(run: Callable[..., None], **options: Any) -> Callable[[Path, Keep], None]:
    return lambda here, keep: run(here, keep, **options)


def _staged_elsewhere(run: Callable[..., None], **options: Any) -> Callable[[Path, Keep], None]:
    return lambda here, keep: run(here, keep, tmp_dir=here / ELSEWHERE, **options)


def _file_rolled_back(here: Path, keep: Keep) -> None:
    guard = atomik.file(here / DESTINATION, "wb", overwrite=True)
    keep(guard)
    with guard as staging:
        staging.write(b"half")
        raise LookupError("in the body")


def _folder_rolled_back(here: Path, keep: Keep) -> None:
    guard = atomik.folder(here / DESTINATION, overwrite=True)
    keep(guard)
    with guard as staging:
        fill(staging, b"half")
        raise LookupError("in the body")


_OLD_FILE, _NEW_FILE, _REPLACED_FILE = (
    file(b"old", kept=True),
    file(b"new"),
    file(b"new", kept=True),
)
_OLD_FOLDER, _NEW_FOLDER = folder(b"old", kept=True), folder(b"new")
_REPLACED_FOLDER = folder(b"new", kept=True)
_OLDER_FILE, _OLDER_FOLDER = file(b"older"), folder(b"older")


def _replacing_file(name: str, run: Callable[..., None]) -> tuple[Operation, Operation]:
    return (
        Operation(f"{name}, new", nothing, _with(run), _NEW_FILE),
        Operation(f"{name}, replacing", _OLD_FILE, _with(run, overwrite=True), _REPLACED_FILE),
    )


def _replacing_folder(name: str, run: Callable[..., None]) -> tuple[Operation, Operation]:
    return (
        Operation(f"{name}, new", nothing, _with(run), _NEW_FOLDER, needs=kernel.NOREPLACE),
        Operation(
            f"{name}, replacing",
            _OLD_FOLDER,
            _with(run, overwrite=True),
            _REPLACED_FOLDER,
            needs=kernel.EXCHANGE,
        ),
    )


ALL: Final = {
    operation.name: operation
    for operation in (
        Operation("text file, new", nothing, _file("w", "new"), _NEW_FILE),
        Operation(
            "text file, replacing", _OLD_FILE, _file("w", "new", overwrite=True), _REPLACED_FILE
        ),
        Operation("binary file, new", nothing, _file("wb", b"new"), _NEW_FILE),
        Operation(
            "binary file, replacing", _OLD_FILE, _file("wb", b"new", overwrite=True), _REPLACED_FILE
        ),
        *_replacing_file("write_bytes", _write_bytes),
        *_replacing_file("write_text", _write_text),
        *_replacing_file("path to a file", _path_to_file),
        *_replacing_folder("path to a folder", _path_to_folder),
        *_replacing_folder("folder", _folder),
        Operation(
            "rename",
            two_files(None, b"new"),
            _with(_rename),
            two_files(b"new", None),
            # What link(2) and unlink(2) pass through, where there is no RENAME_NOREPLACE.
            halfway=two_files(b"new", b"new"),
        ),
        Operation(
            "rename, replacing",
            two_files(b"old", b"new"),
            _with(_rename, overwrite=True),
            two_files(b"new", None),
        ),
        Operation(
            "exchange of files",
            two_files(b"old", b"new"),
            _with(_exchange),
            two_files(b"new", b"old"),
            needs=kernel.EXCHANGE,
        ),
        Operation(
            "exchange of folders",
            two_folders(b"old", b"new"),
            _with(_exchange),
            two_folders(b"new", b"old"),
            needs=kernel.EXCHANGE,
        ),
        Operation(
            "write_bytes, replacing, from tmp_dir",
            with_tmp_dir(_OLD_FILE),
            _staged_elsewhere(_write_bytes, overwrite=True),
            with_tmp_dir(_REPLACED_FILE),
        ),
        Operation(
            "folder, replacing, from tmp_dir",
            with_tmp_dir(_OLD_FOLDER),
            _staged_elsewhere(_folder, overwrite=True),
            with_tmp_dir(_REPLACED_FOLDER),
            needs=kernel.EXCHANGE,
        ),
        Operation(
            "write_bytes, replacing, among orphans",
            with_orphans(_OLD_FILE),
            _with(_write_bytes, overwrite=True),
            _REPLACED_FILE,
        ),
        Operation(
            "folder, replacing, among orphans",
            with_orphans(_OLD_FOLDER),
            _with(_folder, overwrite=True),
            _REPLACED_FOLDER,
            needs=kernel.EXCHANGE,
        ),
        Operation(
            "write_bytes, replacing, beside a living writer",
            with_neighbour(_OLD_FILE),
            _with(_write_bytes, overwrite=True),
            with_neighbour(_REPLACED_FILE),
            neighbour=alive,
        ),
        Operation(
            "folder, replacing, beside a living writer",
            with_neighbour(_OLD_FOLDER),
            _with(_folder, overwrite=True),
            with_neighbour(_REPLACED_FOLDER),
            needs=kernel.EXCHANGE,
            neighbour=alive,
        ),
        Operation(
            "write_bytes, replacing, beside a living writer in the room",
            with_neighbour(_OLD_FILE, in_room),
            _with(_write_bytes, overwrite=True),
            with_neighbour(_REPLACED_FILE, in_room),
            neighbour=alive_in_room,
            elsewhere=False,
        ),
        Operation(
            "folder, replacing, beside a living writer in the room",
            with_neighbour(_OLD_FOLDER, in_room),
            _with(_folder, overwrite=True),
            with_neighbour(_REPLACED_FOLDER, in_room),
            needs=kernel.EXCHANGE,
            neighbour=alive_in_room,
            elsewhere=False,
        ),
        Operation(
            "folder, replacing a read-only one",
            folder(b"old", kept=True, mode=0o550),
            _with(_folder, overwrite=True),
            folder(b"new", kept=True, mode=0o550),
            needs=kernel.EXCHANGE,
            # A folder that moves to another parent must be writable: the mode is set just after.
            halfway=folder(b"new", kept=True, mode=0o750),
        ),
        Operation("file, appended to", _OLD_FILE, _file("ab", b"new"), file(b"oldnew", kept=True)),
        Operation(
            "folder, updated",
            _OLD_FOLDER,
            _update,
            updated_folder,
            needs=kernel.EXCHANGE,
            elsewhere=False,
        ),
        Operation(
            "write_bytes, with a first backup",
            _OLD_FILE,
            _with(_write_bytes, overwrite=True, backup=BACKUP),
            with_backup(_REPLACED_FILE, _OLD_FILE),
            needs=kernel.EXCHANGE,
            elsewhere=False,
            # The displaced version waits in the slot: the next writer gives it its name.
            halfway=_REPLACED_FILE,
        ),
        Operation(
            "write_bytes, with another backup",
            with_backup(_OLD_FILE, _OLDER_FILE),
            _with(_write_bytes, overwrite=True, backup=BACKUP),
            with_backup(_REPLACED_FILE, _OLD_FILE),
            needs=kernel.EXCHANGE,
            elsewhere=False,
            halfway=with_backup(_REPLACED_FILE, _OLDER_FILE),
        ),
        Operation(
            "folder, with another backup",
            with_backup(_OLD_FOLDER, _OLDER_FOLDER),
            _with(_folder, overwrite=True, backup=BACKUP),
            with_backup(_REPLACED_FOLDER, _OLD_FOLDER),
            needs=kernel.EXCHANGE,
            elsewhere=False,
            halfway=with_backup(_REPLACED_FOLDER, _OLDER_FOLDER),
        ),
        Operation(
            "snapshot of what is displaced",
            with_waiting(_OLD_FOLDER, _REPLACED_FOLDER),
            _read_while_displaced,
            _REPLACED_FOLDER,
            needs=kernel.EXCHANGE,
            by_hand=True,
            elsewhere=False,
        ),
        Operation(
            "group, new",
            grouped(None),
            _with(_group),
            grouped(b"new"),
            needs=kernel.NOREPLACE,
            destinations=GROUPED,
            elsewhere=False,
        ),
        Operation(
            "group, replacing",
            grouped(b"old"),
            _with(_group, overwrite=True),
            grouped(b"new"),
            needs=kernel.EXCHANGE,
            destinations=GROUPED,
            elsewhere=False,
        ),
        # All that a group can do where names cannot be exchanged.
        Operation(
            "group of files, new",
            grouped(None),
            _group_of_files,
            grouped_files,
            destinations=GROUPED[:2],
        ),
        Operation(
            "group, rolled back",
            grouped(b"old"),
            _group_rolled_back,
            grouped(b"old"),
            "LookupError",
            needs=kernel.EXCHANGE,
            destinations=GROUPED,
            elsewhere=False,
        ),
        Operation("file, rolled back", _OLD_FILE, _file_rolled_back, _OLD_FILE, "LookupError"),
        Operation(
            "folder, rolled back",
            _OLD_FOLDER,
            _folder_rolled_back,
            _OLD_FOLDER,
            "LookupError",
            needs=kernel.EXCHANGE,
        ),
    )
}
