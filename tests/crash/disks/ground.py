"""Small disks on loop devices and tmpfs, what fills them, and what takes them away.

All are mounted in the private mount namespace of `support/filesystems.py`, below the folder of the `fs`
fixture: whatever ends the test process ends the mounts, and they free their loop devices.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import pytest
from support import kernel
from support.filesystems import Filesystem

# EXT4_IOC_SHUTDOWN of fs/ext4/ext4.h is XFS_IOC_GOINGDOWN of <xfs/xfs_fs.h>: _IOR('X', 125, __u32).
_SHUTDOWN: Final = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
# EXT4_GOING_FLAGS_NOLOGFLUSH, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH: the journal is not written, either.
_WITHOUT_LOG: Final = 2

_SECONDS: Final = 60

Kind = Literal["ext4", "xfs", "btrfs"]


def run(*command: str | Path, accept: Container[int] = (0,)) -> str:
    """Runs a program that must be there and succeed; without it the test is skipped."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is missing")
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode not in accept:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(done.stderr)
        raise error
    return done.stdout


def sync(path: Path) -> None:
    """Does syncfs(2): sync(2) would wait for the disks of everybody."""
    run("sync", "--file-system", path)


@contextmanager
def or_skip() -> Iterator[None]:
    """Skips the test if the ground for it cannot be made here: an old kernel, a container."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{error.cmd[0]} says: {error.stderr.strip()}")


@contextmanager
def mounted(target: Path, *options: str | Path) -> Iterator[Path]:
    """Mounts something on a new folder for the time of a block."""
    target.mkdir(exist_ok=True)
    # In this order, so that a mount that a timeout interrupts is taken back as well.
    with ExitStack() as undo:
        undo.callback(target.rmdir)
        undo.callback(kernel.unmount, target)
        run("mount", *options, target)
        yield target


def make_image(image: Path, kind: Kind, size: int, *options: str) -> None:
    """Makes a filesystem in a sparse file; blocks of zeros take no room in what the file is on."""
    with image.open("wb") as file:
        file.truncate(size)
    quiet = ("-q", "-F") if kind == "ext4" else ("-q",)
    run(f"mkfs.{kind}", *quiet, *options, image)


@contextmanager
def mounted_image(image: Path, target: Path, kind: Kind, *options: str) -> Iterator[Path]:
    """Mounts an image; its loop device goes with the mount."""
    with mounted(target, "-t", kind, "-o", ",".join(("loop", *options)), image) as root:
        yield root


class Supply(Protocol):
    """Something that a disk runs out of: all of it is taken, then given back in the smallest steps."""

    def exhaust(self) -> None:
        """Takes all that is left."""

    def give_back(self) -> None:
        """Makes one more available."""

    def relent(self) -> None:
        """Makes all available again."""


@dataclass
class Blocks:
    """The blocks of a disk, taken by a file of its own."""

    ballast: Path
    unit: int = field(init=False)

    def __post_init__(self) -> None:
        self.unit = os.statvfs(self.ballast.parent).f_bsize

    def exhaust(self) -> None:
        with self.ballast.open("ab") as file:
            step = 1 << 20
            while step >= self.unit:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017 - anything else is no full disk
                    step //= 2
        # ext4 gives back what a failed fallocate(2) has taken, and what was freed, with its next commit.
        sync(self.ballast)
        assert os.statvfs(self.ballast.parent).f_bavail < 4

    def give_back(self, blocks: int = 1) -> None:
        os.truncate(self.ballast, self.ballast.stat().st_size - blocks * self.unit)

    def relent(self) -> None:
        os.truncate(self.ballast, 0)


@dataclass
class Inodes:
    """The inodes of a disk, taken by empty files."""

    folder: Path
    _names: list[Path] = field(default_factory=list)

    def exhaust(self) -> None:
        self.folder.mkdir(exist_ok=True)
        while True:
            name = self.folder / str(len(self._names))
            try:
                name.touch()
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - anything else is no full disk
                return
            self._names.append(name)

    def give_back(self) -> None:
        self._names.pop().unlink()

    def relent(self) -> None:
        while self._names:
            self.give_back()


@dataclass(frozen=True)
class Disk:
    """A small disk, an empty folder on it for the test, and what it can run out of."""

    folder: Path
    supply: Supply


@contextmanager
def small_disk(fs: Filesystem, name: str) -> Iterator[Disk]:
    """Mounts one of the disks of `SMALL`, below a folder of a tmpfs."""
    kind, _, what = name.partition(", ")
    target = fs.here / "small"
    with ExitStack() as undo:
        with or_skip():
            if kind == "tmpfs":
                limit = "size=1m" if what == "blocks" else "size=1m,nr_inodes=40"
                undo.enter_context(mounted(target, "-t", "tmpfs", "-o", limit, "tmpfs"))
            else:
                image = fs.here / "small.img"
                undo.callback(image.unlink, missing_ok=True)
                inodes = "64" if what == "blocks" else "48"
                # No blocks reserved for root, who runs the tests; 1-KiB blocks, so that there are many.
                make_image(image, "ext4", 4 << 20, "-b", "1024", "-m", "0", "-N", inodes)
                undo.enter_context(mounted_image(image, target, "ext4"))
        supply = Blocks(target / "ballast") if what == "blocks" else Inodes(target / "ballast")
        folder = target / "folder"
        folder.mkdir()
        yield Disk(folder, supply)


SMALL: Final = ("tmpfs, blocks", "tmpfs, inodes", "ext4, blocks", "ext4, inodes")


def shut_down(folder: Path) -> None:
    """Ends an ext4 or xfs as a disk does that is pulled out: nothing more is written, every call fails."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
    finally:
        os.close(fd)
