"""Somebody else on the same disk, whose fsyncs make the filesystem commit in the middle of what others do."""

import ctypes
import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Final

from support import kernel

_PAUSE: Final = 0.001
_RECORD: Final = bytes(64)

_BTRFS_IOC_START_SYNC: Final = (
    2 << 30 | 8 << 16 | 0x94 << 8 | 24
)  # _IOR(0x94, 24, __u64), <linux/btrfs.h>
_COMMIT_EVERY: Final = 0.02


@contextmanager
def busy(file: Path) -> Iterator[Callable[[], None]]:
    """Has a process append to a file and sync it every millisecond; yields what waits for a sync from begin to end.

    Steps that sync nothing take less than that millisecond: without the wait, all of them are one transaction.
    """
    context = multiprocessing.get_context("fork")
    synced: Synchronized[int] = context.Value(ctypes.c_uint64)
    process = context.Process(target=_append_forever, args=(file, synced, os.getpid()))
    process.start()

    def wait() -> None:
        # The sync that ends next may have begun before.
        enough = synced.value + 2
        while synced.value < enough:
            if not process.is_alive():
                raise RuntimeError(f"the bystander ended with {process.exitcode}")
            time.sleep(_PAUSE)

    try:
        wait()
        yield wait
    finally:
        process.kill()
        process.join()


def append(file: Path) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, _RECORD)
        os.fsync(fd)
    finally:
        os.close(fd)


def _append_forever(file: Path, synced: "Synchronized[int]", parent: int) -> None:
    kernel.die_with_parent(parent)
    following = 0.0
    while True:
        append(file)
        synced.value += 1
        if time.monotonic() >= following:
            _commit_btrfs(file)
            following = time.monotonic() + _COMMIT_EVERY
        time.sleep(_PAUSE)


def _commit_btrfs(file: Path) -> None:
    """Begins a commit of all of the filesystem, as btrfs does by itself every 30 seconds.

    On ext4 and xfs an fsync takes everybody's changes along. On btrfs it writes one file to the log tree, and what
    others have done without a sync stays in memory: no cut shows that it was incomplete.
    """
    fd = os.open(file, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _BTRFS_IOC_START_SYNC, bytearray(8))
    except OSError as error:
        if error.errno != errno.ENOTTY:  # not btrfs
            raise
    finally:
        os.close(fd)
