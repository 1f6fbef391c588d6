"""Landlock (landlock(7)): a sandbox that a process puts on itself, put together with ctypes.

It cannot be taken off again: use it in a forked child (`support.processes.run_as`), after all imports.
"""

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from support.kernel import LIBC, checked

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULESET_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

# From <linux/landlock.h>, in the order of their bits.
_NAMES: Final = (
    *("EXECUTE", "WRITE_FILE", "READ_FILE", "READ_DIR", "REMOVE_DIR", "REMOVE_FILE", "MAKE_CHAR"),
    *("MAKE_DIR", "MAKE_REG", "MAKE_SOCK", "MAKE_FIFO", "MAKE_BLOCK", "MAKE_SYM"),
    *("REFER", "TRUNCATE", "IOCTL_DEV"),
)
_READING: Final = ("EXECUTE", "READ_FILE", "READ_DIR")
_IN_DEV: Final = ("READ_FILE", "WRITE_FILE")

RIGHTS: Final[Mapping[int, tuple[str, ...]]] = {
    1: _NAMES[:13],
    2: _NAMES[:14],
    3: _NAMES[:15],
    5: _NAMES[:16],
}
"""The rights about files that each version of the interface brought; the others brought none."""


def version() -> int:
    """Returns the version of the interface that the kernel has; 0 if it has none, or it is off."""
    try:
        return _call(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return 0


def restrict(folder: Path, interface: int, without: tuple[str, ...] = ()) -> None:
    """Allows everything in `folder` but some rights, and elsewhere only to read."""
    handled = RIGHTS[interface]
    ruleset = _call(_CREATE_RULESET, struct.pack("Q", _bits(handled)), 8, 0)
    places = {
        folder: tuple(right for right in handled if right not in without),
        Path("/"): _READING,
        Path("/dev"): _IN_DEV,
    }
    for place, allowed in places.items():
        opened = os.open(place, os.O_PATH)
        rule = struct.pack("=Qi", _bits(allowed), opened)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        os.close(opened)
    checked(LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _bits(rights: tuple[str, ...]) -> int:
    return sum(1 << _NAMES.index(right) for right in rights)


def _call(number: int, *arguments: object) -> int:
    # The same numbers on all architectures.
    return checked(LIBC.syscall(number, *arguments), "landlock")
