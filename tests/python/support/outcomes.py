"""Versions that prove that they are complete, every call that writes one, and how a call may end.

`test_writers.py` asks for one clean outcome on filesystems that can do everything. Here a filesystem may
lack a call, another machine may be faster, and still each outcome must be one that the contract names.
"""

import errno
import os
import stat
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypeVar, cast

import atomik

from support.crowd import Say

_T = TypeVar("_T")

PIECE: Final = 100
FILES: Final = ("first", "inner/second", "inner/third", "last")

Halfway: TypeAlias = Callable[[], None]
Publish: TypeAlias = Callable[[Path, int, Halfway], None]


class Outcome(StrEnum):
    """How a call ended, in the contract's words."""

    PUBLISHED = "published"
    EXISTS = "refused, since something is there"
    CONFLICT = "refused, since another version is there"
    UNSUPPORTED = "refused, since the filesystem cannot do it"
    UNSUPPORTED_LATE = "refused after the body, since the filesystem cannot do it"


class StagingLost(Exception):  # noqa: N818 - it says what has happened
    """A body has found its staging changed or gone while it was writing."""


class Vanished(Exception):  # noqa: N818 - it says what has happened
    """The version that was being read has been replaced and removed."""


class Incomplete(AssertionError):  # noqa: N818 - it says what is so
    """Something was published that no writer has written."""


@dataclass(frozen=True)
class Call:
    """One way to write: `publish` writes as one writer, and calls back in the middle of its body."""

    publish: Publish
    makes_folders: bool = False
    needs_exchange: bool = False
    appends: bool = False
    backup: bool = False


def content(writer: int) -> bytes:
    """Returns what this writer writes, again and again."""
    return b"%06d\n" % writer * PIECE


def at_once() -> None:
    """Goes on at once."""


def _write(staging: Path, writer: int, mode: str = "xb") -> None:
    with _opened(staging, mode) as file:
        file.write(content(writer))


def _check(staging: Path, expected: bytes) -> None:
    with _opened(staging, "rb") as file:
        if _uploaded(file.read) != expected:
            raise StagingLost(f"{staging} has another content")


def _opened(path: Path, mode: str) -> IO[bytes]:
    return _uploaded(lambda: cast("IO[bytes]", path.open(mode)))


def _uploaded(step: Callable[[], _T]) -> _T:
    """Repeats a step of a body on a file that rclone still uploads, of which it says `EIO`."""
    end = time.monotonic() + 2
    while True:
        try:
            return step()
        except OSError as error:
            if error.errno != errno.EIO or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _fill(folder: Path, writer: int, halfway: Halfway, mode: str = "xb") -> None:
    try:
        (folder / "inner").mkdir(exist_ok=mode != "xb")
        for name in FILES[:2]:
            _write(folder / name, writer, mode)
        halfway()
        for name in FILES[:2]:
            _check(folder / name, content(writer))
        for name in FILES[2:]:
            _write(folder / name, writer, mode)
    except OSError as error:
        raise StagingLost(describe(error)) from error


def _file(mode: atomik.OpenMode = "wb", **options: Any) -> Publish:
    def publish(destination: Path, writer: int, halfway: Halfway) -> None:
        staging: Any
        with atomik.file(destination, mode, durability="none", **options) as staging:
            staging.write(content(writer))
            halfway()
            staging.write(content(writer))

    return publish


def _write_bytes(destination: Path, writer: int, _: Halfway) -> None:
    atomik.write_bytes(destination, content(writer) * 2, overwrite=True, durability="none")


def _path_to_file(destination: Path, writer: int, halfway: Halfway) -> None:
    with atomik.path(destination, overwrite=True, durability="none") as staging:
        try:
            _write(staging, writer)
            halfway()
            _check(staging, content(writer))
            _write(staging, writer, "ab")
        except OSError as error:
            raise StagingLost(describe(error)) from error


def _folder(**options: Any) -> Publish:
    mode = "wb" if options.get("update") else "xb"

    def publish(destination: Path, writer: int, halfway: Halfway) -> None:
        with atomik.folder(destination, durability="none", **options) as staging:
            _fill(staging, writer, halfway, mode)

    return publish


def _path_to_folder(destination: Path, writer: int, halfway: Halfway) -> None:
    with atomik.path(destination, overwrite=True, durability="none") as staging:
        try:
            staging.mkdir()
        except OSError as error:
            raise StagingLost(describe(error)) from error
        _fill(staging, writer, halfway)


CALLS: Final[Mapping[str, Call]] = {
    "file": Call(_file(overwrite=True)),
    "new file": Call(_file(overwrite=False)),
    "write_bytes": Call(_write_bytes),
    "file that appends": Call(_file("ab", overwrite=True), appends=True),
    "file with a backup": Call(_file(overwrite=True, backup="backup"), backup=True),
    "path to a file": Call(_path_to_file),
    "folder": Call(_folder(overwrite=True), makes_folders=True),
    "new folder": Call(_folder(), makes_folders=True),
    "updated folder": Call(_folder(update=True), makes_folders=True),
    "folder with a backup": Call(
        _folder(overwrite=True, backup="backup"), makes_folders=True, backup=True
    ),
    "path to a folder": Call(_path_to_folder, makes_folders=True),
}


def attempt(call: Call, destination: Path, writer: int, halfway: Halfway = at_once) -> Outcome:
    """Writes a version; every error that the contract does not name for it is raised."""
    body_ran = False

    def in_the_body() -> None:
        nonlocal body_ran
        body_ran = True
        halfway()

    try:
        with warnings.catch_warnings():
            # Readers may hold what is to be removed; who looks at what is left will see it.
            warnings.simplefilter("ignore", atomik.CleanupWarning)
            call.publish(destination, writer, in_the_body)
    except atomik.FileAlreadyExistsError:
        return Outcome.EXISTS
    except atomik.ConflictError:
        return Outcome.CONFLICT
    except atomik.UnsupportedFilesystemError:
        return Outcome.UNSUPPORTED_LATE if body_ran else Outcome.UNSUPPORTED
    return Outcome.PUBLISHED


def say_attempt(
    say: Say, call: Call, destination: Path, writer: int, halfway: Halfway = at_once
) -> None:
    """Says in a crowd how an attempt ended, an error that should not be included."""
    try:
        outcome: str = attempt(call, destination, writer, halfway)
    except (OSError, StagingLost) as error:
        outcome = describe(error)
    say(outcome)


def describe(error: Exception) -> str:
    """Says which error it is and where, without what differs from one to the next."""
    if not isinstance(error, OSError) or error.errno is None:
        return f"{type(error).__name__}: {error}"
    name = errno.errorcode.get(error.errno, str(error.errno))
    where = os.path.basename(os.fsdecode(error.filename or b""))
    return f"{type(error).__name__} {name} {where}: {error}"


def unexpected(said: Iterable[str], *expected: Outcome) -> Counter[str]:
    """Counts what was said that was not to be expected."""
    return Counter(word for word in said if word not in expected)


def read_writer(destination: Path, *, appended: bool = False) -> int:
    """Returns who has written the version that is there, which must be complete.

    Raises `Vanished` where it is replaced meanwhile, as readers through FUSE see it.
    """
    try:
        if stat.S_ISDIR(destination.stat().st_mode):
            pieces = _read_folder(destination)
        else:
            whole = destination.read_bytes()
            length = len(content(0))
            pieces = [whole[start : start + length] for start in range(0, len(whole), length)]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            raise Vanished(str(error)) from error
        raise
    return _writer_of(destination, pieces, appended=appended)


def _read_folder(folder: Path) -> list[bytes]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pieces: list[bytes] = []
        for name in FILES:
            with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                pieces.append(file.read())
        return pieces
    finally:
        os.close(fd)


def _writer_of(destination: Path, pieces: list[bytes], *, appended: bool) -> int:
    try:
        writers = [int(piece[:6]) for piece in pieces]
    except ValueError as error:
        raise Incomplete(f"{destination}: {pieces}") from error
    whole = bool(writers) and pieces == [content(writer) for writer in writers]
    if not whole or not (appended or len(set(writers)) == 1) or len(writers) % 2:
        parts = [(piece[:6], len(piece)) for piece in pieces]
        raise Incomplete(f"{destination}: {parts}")
    return writers[-1]


def check_complete(destination: Path, call: Call) -> None:
    """Checks what stands at a destination and at its backup, if anything does."""
    for path in (destination, destination.with_name("backup")):
        if path.exists():
            read_writer(path, appended=call.appends)
