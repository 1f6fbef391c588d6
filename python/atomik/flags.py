"""The constants that calls take."""

from enum import IntFlag, StrEnum

__all__ = ["AT_FDCWD", "Mode", "RenameFlags"]

AT_FDCWD = -100
"""Stands for the current folder in `renameat2`; the same number on every Linux.

Example:
    >>> atomik.renameat2(AT_FDCWD, "draft.txt", AT_FDCWD, "final.txt", 0)
"""


class Mode(StrEnum):
    """The modes of the first release; `open`'s strings do the same and more.

    Example:
        >>> with atomik.file("data.bin", atomik.Mode.BYTES) as f:
        ...     _ = f.write(b"42")
    """

    TEXT = "w"
    BYTES = "wb"


class RenameFlags(IntFlag):
    """The flags of renameat2(2).

    Example:
        >>> here = atomik.AT_FDCWD
        >>> atomik.renameat2(here, "live", here, "next", atomik.RenameFlags.EXCHANGE)
    """

    NOREPLACE = 1
    """Fail with EEXIST instead of replacing."""
    EXCHANGE = 2
    """Exchange the two names."""
    WHITEOUT = 4
    """Leave a whiteout in the old place; needs CAP_MKNOD."""
