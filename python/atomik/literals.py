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
"""A path, as all calls take it.

Example:
    >>> def save(path: atomik.AnyPath) -> None:
    ...     atomik.write_text(path, "42", overwrite=True)
    >>> save(b"result.txt")
"""

Durability: TypeAlias = Literal["full", "ordered", "none"]
"""`durability=`: what is left of a commit after a power cut.

Example:
    >>> def save(text: str, durability: atomik.Durability = "full") -> None:
    ...     atomik.write_text("result.txt", text, overwrite=True, durability=durability)
    >>> save("42", "none")
"""

Cleanup: TypeAlias = Literal["inline", "background"]
"""`cleanup=`: when a displaced version is removed.

Example:
    >>> cleanup: atomik.Cleanup = "background"
    >>> with atomik.folder("site", overwrite=True, cleanup=cleanup) as dir:
    ...     _ = (dir / "index.html").write_text("hello")
"""

Siblings: TypeAlias = Literal["refuse", "publish", "discard"]
"""`siblings=` of `path`: what becomes of what a tool leaves beside the path.

Example:
    >>> siblings: atomik.Siblings = "publish"
    >>> with atomik.path("map.shp", siblings=siblings) as p:
    ...     _ = p.write_text("shapes")
    ...     _ = p.with_suffix(".dbf").write_text("attributes")
"""

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
"""The modes of `file` for text.

Example:
    >>> def lines(mode: atomik.TextMode = "w") -> None:
    ...     with atomik.file("lines.txt", mode) as f:
    ...         f.writelines(["one\\n", "two\\n"])
    >>> lines()
"""

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
"""The modes of `file` for bytes.

Example:
    >>> def save(data: bytes, mode: atomik.BinaryMode = "wb") -> None:
    ...     with atomik.file("data.bin", mode) as f:
    ...         _ = f.write(data)
    >>> save(b"42")
"""

OpenMode: TypeAlias = TextMode | BinaryMode
"""The modes of `file`: those of `open`, but for those that only read.

Example:
    >>> def start(mode: atomik.OpenMode) -> None:
    ...     with atomik.file("log.txt", mode):
    ...         pass
    >>> start("x")
"""
