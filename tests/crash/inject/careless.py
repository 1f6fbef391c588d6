"""Writers as people write them, each with one mistake, and one without: what the tests must tell apart.

To each mistake belongs the beginning of the judgement that it must get.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from support import slot_names

from inject.operations import Keep, Operation
from inject.worlds import DESTINATION, alive, file, porch, with_neighbour

_UNKNOWN: Final = f".atomik-mine.{DESTINATION}~"


class _Staged:
    """A temporary file that replaces the destination; `mistake` says what is wrong with it."""

    def __init__(self, mistake: str) -> None:
        self._mistake = mistake

    def __call__(self, here: Path, _: Keep) -> None:
        staging = self._staging(here)
        fd = os.open(staging, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            self._publish(fd, staging, here / DESTINATION)
        except OSError as error:
            if self._mistake != "leaves staging after an error":
                staging.unlink(missing_ok=True)
            if self._mistake == "removes another's slot after an error":
                shutil.rmtree(porch(here))
            if self._mistake == "dies of an error":
                os.abort()
            if self._mistake == "prints an error":
                print(error, file=sys.stderr, flush=True)
            if self._mistake != "reports success after an error":
                raise
        finally:
            if self._mistake != "leaks the descriptor":
                os.close(fd)

    def _staging(self, here: Path) -> Path:
        if self._mistake == "takes a name that nobody knows":
            return here / _UNKNOWN
        if self._mistake == "removes another's slot after an error":
            return slot_names.foreign(here / DESTINATION)
        return porch(here)

    def _publish(self, fd: int, staging: Path, destination: Path) -> None:
        os.write(fd, b"new")
        os.fsync(fd)
        os.rename(staging, destination)
        if self._mistake == "hides that it has published":
            os.fsync(fd)


def _writes_in_place(here: Path, _: Keep) -> None:
    with open(here / DESTINATION, "wb") as f:
        f.write(b"new")


class _Noisy:
    """Has a destructor that raises."""

    def __del__(self) -> None:
        os.fsync(-1)


def _raises_in_a_destructor(here: Path, keep: Keep) -> None:
    noisy = _Noisy()
    _Staged("")(here, keep)
    del noisy


def _careless(name: str, run: Callable[[Path, Keep], None]) -> Operation:
    return Operation(name, file(b"old"), run, file(b"new"))


def _beside(name: str, run: Callable[[Path, Keep], None]) -> Operation:
    old, new = with_neighbour(file(b"old")), with_neighbour(file(b"new"))
    return Operation(name, old, run, new, neighbour=alive)


CAREFUL: Final = _careless("careful", _Staged(""))
ALL: Final = {
    CAREFUL.name: CAREFUL,
    "writes in place": _careless("writes in place", _writes_in_place),
    "raises in a destructor": _careless("raises in a destructor", _raises_in_a_destructor),
    "removes another's slot after an error": _beside(
        "removes another's slot after an error", _Staged("removes another's slot after an error")
    ),
} | {
    mistake: _careless(mistake, _Staged(mistake))
    for mistake in (
        "leaves staging after an error",
        "dies of an error",
        "prints an error",
        "reports success after an error",
        "leaks the descriptor",
        "hides that it has published",
        "takes a name that nobody knows",
    )
}
ERRORS_TELL: Final = {
    "writes in place": "the wrong version after an error",
    "raises in a destructor": "unraisable: ",
    "leaves staging after an error": "left without a word: ",
    "removes another's slot after an error": "taken from a living writer: ",
    "dies of an error": "it died, with status -6",
    "prints an error": "stderr: ",
    "reports success after an error": "the wrong version after success",
    "leaks the descriptor": "leaked: ",
    "hides that it has published": "the wrong version after an error",
}
KILLS_TELL: Final = {
    "writes in place": "neither old nor new",
    "takes a name that nobody knows": f"of ['{_UNKNOWN}']: the next writer, ",
}
