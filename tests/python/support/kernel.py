"""The kernel as the tests see it, without the library: what they compare it with."""

import ctypes
import errno
import fcntl
import os
import platform
import signal
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

NOREPLACE: Final = 1
EXCHANGE: Final = 2
WHITEOUT: Final = 4

AT_FDCWD: Final = -100
CLONE_NEWNS: Final = 0x00020000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
MNT_DETACH: Final = 2

# The number of renameat2(2), from each architecture's syscall table.
_RENAMEAT2: Final[Mapping[str, int]] = {
    "x86_64": 316,
    "i686": 353,
    "aarch64": 276,
    "armv7l": 382,
    "riscv64": 276,
    "ppc64le": 357,
    "s390x": 347,
}

# _IOR('f', 1, long) and _IOW('f', 2, long) of <linux/fs.h>.
_LONG: Final = struct.calcsize("l")
_GETFLAGS: Final = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
_SETFLAGS: Final = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
_IMMUTABLE: Final = 0x10
_APPEND: Final = 0x20
SYNCHRONOUS: Final = 0x8
NO_DUMP: Final = 0x40
NO_ACCESS_TIME: Final = 0x80
NO_COPY_ON_WRITE: Final = 0x800000

LIBC: Final = ctypes.CDLL(None, use_errno=True)


def checked(result: int, *said: object) -> int:
    """Returns what a function of the C library returned, or raises what it says in `errno`."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *said)
    return result


def renameat2(src: Path, dst: Path, flags: int) -> None:
    """Renames with the bare system call."""
    checked(
        LIBC.syscall(
            _RENAMEAT2[platform.machine()],
            AT_FDCWD,
            os.fsencode(src),
            AT_FDCWD,
            os.fsencode(dst),
            ctypes.c_uint(flags),
        )
    )


def filesystem_type(folder: Path) -> int:
    """Returns the number of a filesystem's type, from <linux/magic.h>, as statfs(2) tells it."""
    answer = ctypes.create_string_buffer(512)
    checked(LIBC.statfs(os.fsencode(folder), answer))
    word = "I" if platform.machine() == "s390x" else "l"
    (number,) = struct.unpack_from(word, answer)
    assert isinstance(number, int)
    return number & 0xFFFF_FFFF


def enter_private_mount_namespace() -> None:
    """Gives the calling thread, and all that it starts, mounts that nobody else sees."""
    checked(LIBC.unshare(CLONE_NEWNS))


def unmount(target: Path) -> None:
    """Unmounts what is mounted at `target`, if anything is."""
    try:
        checked(LIBC.umount2(os.fsencode(target), 0))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return
        if error.errno != errno.EBUSY:
            raise
        # Somebody still has a file open there; the mount goes when that is closed.
        checked(LIBC.umount2(os.fsencode(target), MNT_DETACH))


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that ends."""
    checked(LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)  # it ended before the call


def become_dumpable() -> None:
    """Undoes what setuid(2) does to /proc/self: an ordinary program has it as its own."""
    checked(LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def set_immutable(path: Path, *, immutable: bool) -> None:
    """Does what `chattr +i` and `chattr -i` do."""
    _set_flag(path, _IMMUTABLE, on=immutable)


def set_append_only(path: Path, *, append_only: bool) -> None:
    """Does what `chattr +a` and `chattr -a` do."""
    _set_flag(path, _APPEND, on=append_only)


def _set_flag(path: Path, flag: int, *, on: bool) -> None:
    flags = inode_flags(path)
    set_inode_flags(path, flags | flag if on else flags & ~flag)


def inode_flags(path: Path) -> int:
    """Returns what `lsattr -d` shows, as bits."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        argument = bytearray(_LONG)
        fcntl.ioctl(fd, _GETFLAGS, argument)
        # The kernel writes four bytes of the long.
        (flags,) = struct.unpack_from("=I", argument)
        return int(flags)
    finally:
        os.close(fd)


def set_inode_flags(path: Path, flags: int) -> None:
    """Sets all of them, as bits."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("=I", flags).ljust(_LONG, b"\0"))
    finally:
        os.close(fd)
