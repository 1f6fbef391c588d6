"""Every public call that publishes, as one function each, and what a version looks like that it has published.

The mode and xattrs of a new version are kept from the old one, set by an option, or the body's own: each of these is
somebody's way here.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol, Required, TypeAlias, TypedDict

import atomik

from powercut import versions
from powercut.versions import FILE_MODES, FOLDER_MODES, KEPT, KEPT_VALUE, NEXT, VERSION, Version

Durability: TypeAlias = Literal["full", "ordered", "none"]

_PIECE: Final = 64 << 10
MODES_BY_UMASK: Final = tuple(0o666 & ~umask for umask in (0o000, 0o002, 0o022, 0o027, 0o077))


class How(TypedDict, total=False):
    """The options that all ways have."""

    overwrite: Required[bool]
    durability: Durability
    tmp_dir: Path
    backup: str


class Way(Protocol):
    """One way to publish one kind of version."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> str: ...
    def version(self, number: int, *, replaced: bool) -> Version:
        """Returns a version as it is after all those before it."""
        ...

    def next_version(self, base: int, *, replaced: bool) -> Version:
        """Returns the version `NEXT` as it is right after version `base`."""
        ...

    def publish(self, place: Path, number: int, how: How) -> None: ...


@dataclass(frozen=True)
class FileWay:
    """A call that publishes a file, and where the mode and xattrs of the new version come from.

    "kept": from the old version. "set": the mode from `permissions`, the xattrs from the old version. "own": from the
    body, with `preserve=False`. "any": they are not looked at.
    """

    name: str
    call: Callable[[Path, bytes, int, How], None]
    metadata: Literal["kept", "set", "own", "any"]
    length: int = 4096
    seed: str = "file"
    """Of the content."""

    @property
    def size(self) -> str:
        return str(self.length)

    def version(self, number: int, *, replaced: bool) -> Version:
        content = self._content(number)
        kept = {KEPT: KEPT_VALUE} if replaced else {}
        match self.metadata:
            case "kept":
                modes = (FILE_MODES[0],) if replaced else MODES_BY_UMASK
                return versions.file(content, *modes, attributes=kept)
            case "set":
                return versions.file(content, FILE_MODES[number], attributes=kept)
            case "own":
                own = {VERSION: str(number).encode()}
                return versions.file(content, FILE_MODES[number], attributes=own)
            case "any":
                return versions.file(content)

    def next_version(self, base: int, *, replaced: bool) -> Version:
        del base
        return self.version(NEXT, replaced=replaced)

    def publish(self, place: Path, number: int, how: How) -> None:
        self.call(place, self._content(number), number, how)

    def _content(self, number: int) -> bytes:
        return versions.text(f"{self.seed} {number}", self.length)


@dataclass(frozen=True)
class TreeWay:
    """A call that publishes a folder of 20 files; its xattrs are its own, or those of the old version."""

    name: str
    call: Callable[[Path, Version, How], None]
    keeps: bool
    modes: Sequence[int] = FOLDER_MODES
    size: str = "tree"

    def version(self, number: int, *, replaced: bool) -> Version:
        tree = versions.tree(number)
        root = replace(tree[""], modes=(self.modes[number],))
        if self.keeps:
            root = replace(root, attributes={KEPT: KEPT_VALUE} if replaced else {})
        return {**tree, "": root}

    def next_version(self, base: int, *, replaced: bool) -> Version:
        del base
        return self.version(NEXT, replaced=replaced)

    def publish(self, place: Path, number: int, how: How) -> None:
        self.call(place, self.version(number, replaced=False), how)


@dataclass(frozen=True)
class SymlinkWay:
    """A tool that makes a symlink: short, it lies in the inode; long, in a block of its own."""

    length: int
    name: str = "path-symlink"

    @property
    def size(self) -> str:
        return str(self.length)

    def version(self, number: int, *, replaced: bool) -> Version:
        del replaced
        return versions.symlink(f"{number}-".ljust(self.length, "x"))

    def next_version(self, base: int, *, replaced: bool) -> Version:
        del base
        return self.version(NEXT, replaced=replaced)

    def publish(self, place: Path, number: int, how: How) -> None:
        with atomik.path(place, **how) as new:
            versions.build(self.version(number, replaced=False), new)


def file_text(place: Path, content: bytes, number: int, how: How) -> None:
    with atomik.file(place, "w", encoding="ascii", permissions=FILE_MODES[number], **how) as new:
        new.write(content.decode("ascii"))


def file_binary(place: Path, content: bytes, number: int, how: How) -> None:
    with atomik.file(place, "wb", preserve=False, permissions=FILE_MODES[number], **how) as new:
        for start in range(0, len(content), _PIECE):
            new.write(content[start : start + _PIECE])
        os.setxattr(new.fileno(), VERSION, str(number).encode())


def write_bytes(place: Path, content: bytes, number: int, how: How) -> None:
    atomik.write_bytes(place, content, permissions=FILE_MODES[number], **how)


def write_text(place: Path, content: bytes, _: int, how: How) -> None:
    atomik.write_text(place, content.decode("ascii"), encoding="ascii", **how)


def path_file(place: Path, content: bytes, number: int, how: How) -> None:
    with atomik.path(place, preserve=False, **how) as new:
        new.write_bytes(content)
        new.chmod(FILE_MODES[number])
        os.setxattr(new, VERSION, str(number).encode())


def folder(place: Path, version: Version, how: How) -> None:
    (mode,) = version[""].modes
    with atomik.folder(place, permissions=mode, **how) as new:
        versions.build({**version, "": replace(version[""], modes=())}, new)


def path_folder(place: Path, version: Version, how: How) -> None:
    with atomik.path(place, preserve=False, **how) as new:
        versions.build(version, new)


def folder_in_background(place: Path, version: Version, how: How) -> None:
    (mode,) = version[""].modes
    with atomik.folder(place, permissions=mode, cleanup="background", **how) as new:
        versions.build({**version, "": replace(version[""], modes=())}, new)


def path_folder_in_background(place: Path, version: Version, how: How) -> None:
    with atomik.path(place, preserve=False, cleanup="background", **how) as new:
        versions.build(version, new)


FILE_WAYS: Final = (
    FileWay("file-w", file_text, "set"),
    FileWay("file-wb", file_binary, "own"),
    FileWay("write_bytes", write_bytes, "set"),
    FileWay("write_text", write_text, "kept"),
    FileWay("path-file", path_file, "own"),
)

TREE_WAYS: Final = (
    TreeWay("folder", folder, keeps=True),
    TreeWay("path-folder", path_folder, keeps=False),
)

# What has been displaced is removed in a thread, after the commit has returned.
BACKGROUND_WAYS: Final = (
    TreeWay("folder-background", folder_in_background, keeps=True),
    TreeWay("path-folder-background", path_folder_in_background, keeps=False),
)

# Modes that a folder can only get after the publish.
READ_ONLY: Final = TreeWay(
    "folder-read-only", folder, keeps=True, modes=(0o555, 0o500, 0o550, 0o511, 0o501, 0o555)
)

SYMLINK_WAYS: Final = tuple(SymlinkWay(length) for length in (10, 1000))
