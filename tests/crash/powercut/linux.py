"""The system calls that the engine needs and Python does not have: mounts, loop devices, holes."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from support import kernel
from support.kernel import checked

_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_FALLOC_FL_PUNCH_HOLE: Final = 0x3  # with FALLOC_FL_KEEP_SIZE, as fallocate(2) demands

# <linux/loop.h>, <linux/fs.h>, <linux/btrfs.h>
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_FLAGS_AUTOCLEAR: Final = 4
_LO_FLAGS_DIRECT_IO: Final = 16
_LOOP_CONFIG: Final = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 64x")
_BLKFLSBUF: Final = 0x1261
_BTRFS_IOC_FORGET_DEV: Final = 0x50009405

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.mount.argtypes = (*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)


def enter_private_mounts() -> int:
    """Gives this process mounts that nobody else sees, and that are gone when it is; returns the way back out."""
    outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    kernel.enter_private_mount_namespace()
    mount("none", Path("/"), None, "", _MS_REC | _MS_PRIVATE)
    return outside


def leave_private_mounts(outside: int) -> None:
    checked(_libc.setns(outside, kernel.CLONE_NEWNS), "setns")


def mount(source: str, target: Path, kind: str | None, options: str = "", flags: int = 0) -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind and kind.encode(),
        flags,
        options.encode(),
    )
    checked(result, f"{source} on {target} ({kind}, {options!r})")


@contextmanager
def mounted(source: str, target: Path, kind: str, options: str = "") -> Iterator[None]:
    mount(source, target, kind, options)
    try:
        yield
    finally:
        unmount(target)


def unmount(target: Path) -> None:
    """Unmounts, and fails with EBUSY where that would leave the filesystem running."""
    checked(_libc.umount2(os.fsencode(target), 0), os.fspath(target))


def punch_hole(fd: int, offset: int, length: int) -> None:
    checked(_libc.fallocate(fd, _FALLOC_FL_PUNCH_HOLE, offset, length), "fallocate")


def data_chunks(fd: int, size: int) -> Iterator[int]:
    """Yields the numbers of the chunks of this size in which the file has data, in ascending order."""
    following = offset = 0
    while True:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        first = max(start // size, following)
        following = -(-offset // size)
        yield from range(first, following)


class Loop:
    """A loop device on a file. The kernel frees it when this is closed and nothing is mounted from it."""

    def __init__(self, file: Path, *, direct: bool) -> None:
        flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_DIRECT_IO if direct else 0)
        backing = os.open(file, os.O_RDWR)
        try:
            config = _LOOP_CONFIG.pack(backing, 0, *[0] * 8, flags, b"", b"", b"", 0, 0)
            self.fd, self.path = _configured(config)
        finally:
            os.close(backing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def drop_cache(self) -> None:
        """Forgets what was read from the device: the file beneath it has changed since."""
        fcntl.ioctl(self.fd, _BLKFLSBUF, 0)

    def forget_btrfs(self) -> None:
        """Has btrfs forget the device: it refuses a copy on another device that is a generation older."""
        with suppress(FileNotFoundError), open("/dev/btrfs-control", "rb") as control:
            name = os.fsencode(self.path)
            try:
                fcntl.ioctl(
                    control, _BTRFS_IOC_FORGET_DEV, bytearray(struct.pack("=q4088s", 0, name))
                )
            except OSError as error:
                # Since Linux 6.7 a filesystem of one device is forgotten with its unmount.
                if error.errno != errno.ENOENT:
                    raise


def _configured(config: bytes) -> tuple[int, str]:
    with open("/dev/loop-control", "rb") as control:
        while True:
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            fd = os.open(path, os.O_RDWR)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # somebody else was faster
                    raise
            else:
                return fd, path
