"""Extended attributes, and POSIX ACLs as the kernel stores them in such.

The layout is that of <linux/posix_acl_xattr.h>.
"""

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ACCESS: Final = "system.posix_acl_access"
DEFAULT: Final = "system.posix_acl_default"

_VERSION: Final = 2
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID: Final = 0xFFFFFFFF


def allowing(
    user: int, permissions: int = 0o6, *, owner: int = 0o7, group: int = 0o4, other: int = 0
) -> bytes:
    """Returns an ACL that gives one user more than the group has."""
    entries = (
        (_USER_OBJ, owner, _NO_ID),
        (_USER, permissions, user),
        (_GROUP_OBJ, group, _NO_ID),
        (_MASK, permissions | group, _NO_ID),
        (_OTHER, other, _NO_ID),
    )
    return struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_attribute(path: Path, name: str, value: bytes) -> bool:
    """Sets an extended attribute, an ACL for example; returns whether the filesystem has such."""
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False
    return True


def attributes(
    path: Path, prefixes: Sequence[str] = ("user.", "system.posix_acl")
) -> dict[str, bytes]:
    """Returns a path's own extended attributes, ACLs included, following nothing."""
    names = os.listxattr(path, follow_symlinks=False)
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(names)
        if name.startswith(tuple(prefixes))
    }
