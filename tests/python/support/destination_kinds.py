"""Everything that a destination can be before a call, each made by one function."""

import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.filesystems import Filesystem

OLD: Final = b"old"
LOWER: Final = "lower-layer folder"


@dataclass(frozen=True)
class Place:
    """A folder of its own and a destination in it."""

    here: Path
    destination: Path


def prepare(fs: Filesystem, kind: str, name: str = "place") -> Place:
    """Makes a place whose destination is of this kind."""
    if kind == LOWER:
        here = fs.take_lower()
        return Place(here, here / "folder")
    here = fs.folder(name)
    destination = here / "destination"
    KINDS[kind](fs, destination)
    return Place(here, destination)


def _missing(_fs: Filesystem, _destination: Path) -> None:
    pass


def _file(_fs: Filesystem, destination: Path) -> None:
    destination.write_bytes(OLD)


def _hard_linked_file(_fs: Filesystem, destination: Path) -> None:
    destination.write_bytes(OLD)
    destination.with_name("other-name").hardlink_to(destination)


def _symlink_to_file(_fs: Filesystem, destination: Path) -> None:
    destination.with_name("target").write_bytes(OLD)
    destination.symlink_to("target")


def _symlink_to_folder(fs: Filesystem, destination: Path) -> None:
    _full_folder(fs, destination.with_name("target"))
    destination.symlink_to("target")


def _dangling_symlink(_fs: Filesystem, destination: Path) -> None:
    destination.symlink_to("nowhere")


def _symlink_to_device(_fs: Filesystem, destination: Path) -> None:
    destination.symlink_to("/dev/null")


def _symlink_below_proc(_fs: Filesystem, destination: Path) -> None:
    # As /dev/stdin is.
    destination.symlink_to("/proc/self/fd/0")


def _empty_folder(_fs: Filesystem, destination: Path) -> None:
    destination.mkdir()


def _full_folder(_fs: Filesystem, destination: Path) -> None:
    (destination / "inner").mkdir(parents=True)
    (destination / "old").write_bytes(OLD)
    (destination / "inner" / "old").write_bytes(OLD)


def _fifo(_fs: Filesystem, destination: Path) -> None:
    os.mkfifo(destination)


def _socket(_fs: Filesystem, destination: Path) -> None:
    parent = os.open(destination.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            # A socket's address has room for 107 bytes, whatever the path.
            listener.bind(f"/proc/self/fd/{parent}/{destination.name}")
    finally:
        os.close(parent)


def _device(_fs: Filesystem, destination: Path) -> None:
    os.mknod(destination, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _mount_point(fs: Filesystem, destination: Path) -> None:
    source = destination.with_name("source")
    _full_folder(fs, source)
    destination.mkdir()
    fs.bind(source, destination)


def _bind_mounted_file(fs: Filesystem, destination: Path) -> None:
    source = destination.with_name("source")
    source.write_bytes(OLD)
    destination.touch()
    fs.bind(source, destination)


def _immutable_file(fs: Filesystem, destination: Path) -> None:
    destination.write_bytes(OLD)
    fs.make_immutable(destination)


KINDS: Final[Mapping[str, Callable[[Filesystem, Path], None]]] = {
    "missing": _missing,
    "file": _file,
    "hard-linked file": _hard_linked_file,
    "symlink to a file": _symlink_to_file,
    "symlink to a folder": _symlink_to_folder,
    "dangling symlink": _dangling_symlink,
    "symlink to a device": _symlink_to_device,
    "symlink below /proc": _symlink_below_proc,
    "empty folder": _empty_folder,
    "full folder": _full_folder,
    "FIFO": _fifo,
    "socket": _socket,
    "device": _device,
    "mount point": _mount_point,
    "bind-mounted file": _bind_mounted_file,
    "immutable file": _immutable_file,
}
