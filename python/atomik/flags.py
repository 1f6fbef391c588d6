"""The constants that calls take."""

from enum import IntFlag, StrEnum

__all__ = ["AT_FDCWD", "Mode", "RenameFlags"]

AT_FDCWD = -100
"""Stands for the current folder in `renameat2`; the same number on every Linux."""


class Mode(StrEnum):
    """The modes of the first release; `open`'s strings do the same and more."""

    TEXT = "w"
    BYTES = "wb"


class RenameFlags(IntFlag):
    """The flags of renameat2(2)."""

    NOREPLACE = 1
    """Fail with EEXIST instead of replacing."""
    EXCHANGE = 2
    """Exchange the two names."""
    WHITEOUT = 4
    """Leave a whiteout in the old place; needs CAP_MKNOD."""
