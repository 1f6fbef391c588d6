"""A program that makes one call thousands of times, in rounds, and tells how large it is after each of them.

It is a program of its own, since the interpreter enlarges its tables at some moment of any calls, and by more in a
process that runs tests. CPython interns each part of a `pathlib.Path`. There the table of interned strings holds the
names of all tests: after some 50,000 parts a new one is made, 1.9 or 3.7 MB larger. Here the table grows by 0.2 MB.
"""

import ctypes
import gc
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NoReturn, cast

import atomik

WARM_UP: Final = 300

_LIBC: Final = ctypes.CDLL(None)


@dataclass(frozen=True)
class Size:
    """What the process has now."""

    descriptors: dict[str, str]
    memory: int
    """Bytes, without the pages of program files, which come and go with what the machine has free."""
    blocks: int
    """How many small objects the interpreter has allocated."""

    @classmethod
    def now(cls) -> "Size":
        gc.collect()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kinds = re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s*(\d+) kB$", status, re.MULTILINE)
        assert len(kinds) == 3
        descriptors: dict[str, str] = {}
        for number in os.listdir("/proc/self/fd"):
            # The listing's own descriptor is closed by now.
            with suppress(FileNotFoundError):
                descriptors[number] = os.readlink(f"/proc/self/fd/{number}")
        return cls(descriptors, sum(map(int, kinds)) << 10, sys.getallocatedblocks())


@contextmanager
def raises(kind: type[BaseException], words: str = "") -> Iterator[None]:
    """Stands for `pytest.raises`: pytest would make the program larger."""
    try:
        yield
    except kind as error:
        if words not in str(error):
            raise
    else:
        raise AssertionError(f"no {kind.__name__}")


class Failure(Exception):  # noqa: N818 - what the body raises is its own business
    """Raised by bodies."""


def fail() -> NoReturn:
    raise Failure


def file(folder: Path) -> None:
    with atomik.file(folder / "file", "wb", overwrite=True, durability="none") as staging:
        staging.write(b"new")


def text(folder: Path) -> None:
    with atomik.file(folder / "file", overwrite=True, durability="none") as staging:
        staging.write("new")


def whole_folder(folder: Path) -> None:
    with atomik.folder(folder / "folder", overwrite=True, durability="none") as staging:
        (staging / "index.html").write_bytes(b"new")


def path(folder: Path) -> None:
    with atomik.path(folder / "path", overwrite=True, durability="none") as staging:
        staging.write_bytes(b"new")


def leak_of_100_bytes(_: Path) -> None:
    """Is none of the library's: a test looks whether it would be seen."""
    _LIBC.malloc(100)


def write_bytes(folder: Path) -> None:
    atomik.write_bytes(folder / "destination", b"new", overwrite=True, durability="none")


def refusal(folder: Path) -> None:
    (folder / "destination").touch()
    with raises(atomik.FileAlreadyExistsError):
        atomik.write_bytes(folder / "destination", b"new", durability="none")


def write_text(folder: Path) -> None:
    atomik.write_text(folder / "file", "new", overwrite=True, durability="none")


def rename(folder: Path) -> None:
    write_text(folder)
    atomik.rename(folder / "file", folder / "renamed", overwrite=True)


def rename_of_nothing(folder: Path) -> None:
    with raises(FileNotFoundError):
        atomik.rename(folder / "nothing", folder / "renamed")


def nothing_published(folder: Path) -> None:
    with raises(FileNotFoundError), atomik.path(folder / "nothing", durability="none"):
        pass


def failing_file(folder: Path) -> None:
    with (
        suppress(Failure),
        atomik.file(folder / "file", "wb", overwrite=True, durability="none") as staging,
    ):
        staging.write(b"new")
        fail()


def failing_folder(folder: Path) -> None:
    with (
        suppress(Failure),
        atomik.folder(folder / "folder", overwrite=True, durability="none") as staging,
    ):
        (staging / "index.html").write_bytes(b"new")
        fail()


def error_that_keeps_its_guard(folder: Path) -> None:
    """The guard is in a frame that the error's traceback keeps, and the error is in that frame."""
    guard = atomik.file(folder / "file", "wb", overwrite=True, durability="none")
    try:
        with guard:
            fail()
    except Failure as error:
        kept = error
    assert kept.__traceback__ is not None


def guard_in_a_cycle_that_is_never_ended(folder: Path) -> None:
    guard = atomik.folder(folder / "folder", overwrite=True, durability="none")
    cycle: list[object] = [guard, guard.__enter__()]
    cycle.append(cycle)


def generator_that_is_never_finished(folder: Path) -> None:
    def steps() -> Iterator[None]:
        with atomik.file(folder / "file", "wb", overwrite=True, durability="none") as staging:
            staging.write(b"new")
            yield

    next(steps())


def file_that_knows_its_guard(folder: Path) -> None:
    """What the body got leads back to the guard: only a cycle collector that sees both frees them."""
    guard = atomik.file(folder / "file", overwrite=True, durability="none")
    staging = guard.__enter__()
    staging.guard = guard  # type: ignore[attr-defined]
    guard.rollback()


def commit_too_much(folder: Path) -> None:
    guard = atomik.file(folder / "file", "wb", overwrite=True, durability="none")
    with raises(RuntimeError):
        guard.commit()
    with guard:
        pass
    with raises(RuntimeError):
        guard.rollback()
    with raises(RuntimeError):
        guard.__enter__()


def wrong_arguments(folder: Path) -> None:
    with raises(ValueError, "mode"):
        atomik.file(folder / "file", cast("atomik.OpenMode", "r"))
    with raises(ValueError, "durability"):
        atomik.folder(folder, durability="much")  # type: ignore[arg-type]
    with raises(TypeError):
        atomik.write_bytes(folder / "file", "text")  # type: ignore[arg-type]


CALLS: Final[Mapping[str, Callable[[Path], None]]] = {
    call.__name__: call
    for call in (
        file,
        text,
        whole_folder,
        path,
        write_text,
        rename,
        rename_of_nothing,
        nothing_published,
        failing_file,
        failing_folder,
        error_that_keeps_its_guard,
        guard_in_a_cycle_that_is_never_ended,
        generator_that_is_never_finished,
        file_that_knows_its_guard,
        commit_too_much,
        wrong_arguments,
    )
}


_ALL: Final = {
    **CALLS,
    **{call.__name__: call for call in (write_bytes, refusal, leak_of_100_bytes)},
}


def main() -> None:
    """Prints the sizes before, between and after the rounds of calls."""
    call, folder = _ALL[sys.argv[1]], Path(sys.argv[2])
    rounds, times = map(int, sys.argv[3:])
    warnings.filterwarnings("ignore", ".*use 'with'", ResourceWarning)
    for _ in range(WARM_UP):
        call(folder)
    Size.now()
    sizes = [Size.now()]
    for _ in range(rounds):
        for _ in range(times):
            call(folder)
        sizes.append(Size.now())
    print(json.dumps([asdict(size) for size in sizes]))


if __name__ == "__main__":
    main()
