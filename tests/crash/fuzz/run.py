"""What is known of a play while it runs, and which exceptions each of its steps may raise."""

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any, Final

import atomik

from fuzz.arguments import Mischief
from fuzz.plays import Play

Errors = tuple[type[BaseException], ...]

# Wrong arguments are ValueError or TypeError; where `open` and the `os` functions raise others for the same mistake (an
# integer that is no C int, an encoding that nobody knows), these come from Python itself. A warning is an exception
# where the caller has asked for that.
CALL: Final[Errors] = (
    ValueError,
    TypeError,
    OSError,
    OverflowError,
    LookupError,
    BufferError,
    Mischief,
    atomik.CleanupWarning,
)
GUARD: Final[Errors] = (*CALL, RuntimeError, Warning)
BODY: Final[Errors] = (*GUARD, AttributeError, StopIteration)
OBJECT: Final[Errors] = (*BODY, pickle.PicklingError, copy.Error, NotImplementedError)

_NEVER: Final = (SystemError, RecursionError, MemoryError)


@dataclass
class Run:
    """What is known of a play while it runs."""

    play: Play
    guard: Any = None
    body: Any = None
    published: bool = False
    left: bool = False
    """Has the library said that something could not be removed?"""
    faults: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def raised(self, verb: str, error: BaseException, may: Errors) -> None:
        """Judges an exception at once: kept, it would keep the guard that it speaks of."""
        self.answers.append(f"{verb}: {type(error).__name__}")
        if isinstance(error, atomik.CleanupWarning):
            self.left = True
        if isinstance(error, _NEVER) or not isinstance(error, may):
            self.faults.append(f"{verb} raised {error!r}")


@dataclass(frozen=True)
class Outcome:
    """How a play ended: what was wrong (nothing, if all is well), and what it came to."""

    faults: tuple[str, ...]
    answers: tuple[str, ...]
