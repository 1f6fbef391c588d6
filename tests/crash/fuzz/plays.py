"""What a play consists of. All of it can be pickled and printed, so that a failed example can be read and kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Made:
    """An argument that only the worker can make, such as a descriptor: see `arguments.py`."""

    how: str
    of: object = None


@dataclass(frozen=True)
class Step:
    """Something done with the guard, with what its body got, or beside both: see `perform.py`."""

    verb: str
    of: object = None


@dataclass(frozen=True)
class Play:
    """One example.

    `payload` and `depth` say what is written into the new version: bytes or text, and how deep a folder.
    `there` is what has the name `dest`, `around` what else is so, `litter` what stands in the places of slots.
    After `call`, the steps of `threads` run at the same time, those of each thread in order; one thread is the
    worker's own. A `sabotage` is called in place of `call`.
    """

    call: str
    arguments: tuple[object, ...]
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    payload: object = b"new"
    depth: int = 0
    there: str = "missing"
    around: str = "nothing"
    litter: tuple[str, ...] = ()
    threads: tuple[tuple[Step, ...], ...] = ((),)
    warnings_are_errors: bool = False
    sabotage: str | None = None


WRITING: Final = ("file", "folder", "path")
"""The calls that return the guard of a new version."""

MAKING: Final = (*WRITING, "snapshot")
"""The calls that return a guard."""

PLAIN: Final = (Step("enter"), Step("fill"), Step("exit"))
"""What a `with` statement does."""
