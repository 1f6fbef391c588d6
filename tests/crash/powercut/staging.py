"""Takes unnamed files (`O_TMPFILE`) from one call, as NFS and FUSE do: the library then stages under a name."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import seccomp

# O_TMPFILE holds the bit of O_DIRECTORY, too.
_REFUSED: Final = seccomp.Rule(
    "openat", errno.EOPNOTSUPP, argument=2, mask=os.O_TMPFILE & ~os.O_DIRECTORY
)


def without_unnamed_files(call: Callable[[], None]) -> None:
    """Runs a call for which every `O_TMPFILE` fails with EOPNOTSUPP.

    A seccomp filter binds one thread and cannot be taken off again, so the call has a thread that ends with it; the
    rest of the process keeps its unnamed files.
    """
    with ThreadPoolExecutor(1, initializer=seccomp.deny, initargs=([_REFUSED],)) as thread:
        thread.submit(call).result()
