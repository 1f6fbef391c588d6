"""The types of arguments, for those who wrap a call: imported when one of them is used, since typing takes time."""

from os import PathLike
from typing import Literal, TypeAlias

__all__ = [
    "AnyPath",
    "BinaryMode",
    "Cleanup",
    "Durability",
    "OpenMode",
    "Siblings",
    "TextMode",
]

AnyPath: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
"""A path, as all calls take it."""

Durability: TypeAlias = Literal["full", "ordered", "none"]
"""`durability=`: what is left of a commit after a power cut."""

Cleanup: TypeAlias = Literal["inline", "background"]
"""`cleanup=`: when a displaced version is removed."""

Siblings: TypeAlias = Literal["refuse", "publish", "discard"]
"""`siblings=` of `path`: what becomes of what a tool leaves beside the path."""

TextMode: TypeAlias = Literal[
    "w",
    "wt",
    "tw",
    "x",
    "xt",
    "tx",
    "a",
    "at",
    "ta",
    "r+",
    "+r",
    "rt+",
    "r+t",
    "+rt",
    "tr+",
    "t+r",
    "+tr",
    "w+",
    "+w",
    "wt+",
    "w+t",
    "+wt",
    "tw+",
    "t+w",
    "+tw",
    "x+",
    "+x",
    "xt+",
    "x+t",
    "+xt",
    "tx+",
    "t+x",
    "+tx",
    "a+",
    "+a",
    "at+",
    "a+t",
    "+at",
    "ta+",
    "t+a",
    "+ta",
]
"""The modes of `file` for text."""

BinaryWritingMode: TypeAlias = Literal[
    "wb",
    "bw",
    "xb",
    "bx",
    "ab",
    "ba",
]
BinaryUpdatingMode: TypeAlias = Literal[
    "r+b",
    "rb+",
    "+rb",
    "br+",
    "b+r",
    "+br",
    "w+b",
    "wb+",
    "+wb",
    "bw+",
    "b+w",
    "+bw",
    "x+b",
    "xb+",
    "+xb",
    "bx+",
    "b+x",
    "+bx",
    "a+b",
    "ab+",
    "+ab",
    "ba+",
    "b+a",
    "+ba",
]
BinaryMode: TypeAlias = BinaryWritingMode | BinaryUpdatingMode
"""The modes of `file` for bytes."""

OpenMode: TypeAlias = TextMode | BinaryMode
"""The modes of `file`: those of `open`, but for those that only read."""
