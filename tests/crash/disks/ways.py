"""Every way to write a version, in one shape, and what must be so after each attempt.

A version is large enough for many blocks, and reading one proves that it is complete. Each way does
what careful code does: it looks at what `write` answers where that may be short, and at the status of a tool.
"""

import io
import os
import subprocess
import tarfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import atomik
import pytest
from support.filesystems import leftovers

SIZE: Final = 40_000
_NAMES: Final = ("one", "deep/two", "deep/deeper/three", "deep/deeper/four")

OLD: Final = "old"
NEW: Final = "new"


def _nothing() -> None:
    pass


class Body(AbstractContextManager[None]):
    """The inside of a `with`: what happens at its end, and which error it has raised itself.

    An error that is not the body's is the library's, and names the path.
    """

    def __init__(self, at_end: Callable[[], object] = _nothing) -> None:
        self.error: BaseException | None = None
        self.has_ended = False
        self._at_end = at_end

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self.error = error
        if error is None:
            self._at_end()
            self.has_ended = True


@dataclass(frozen=True)
class Way:
    """How a version is written, by its name, and read back.

    `largest` is the size of its largest file; `has_body` says whether the user's code runs on the way.
    """

    name: str
    write: Callable[..., None]
    read: Callable[[Path], str | None]
    largest: int
    has_body: bool

    @property
    def is_folder(self) -> bool:
        return self.read is read_folder

    @property
    def is_staged_by_name(self) -> bool:
        """Whether the version has a path while it is built: no file of the library's is open, then."""
        return self.write in (folder, tool_file, tool_folder)


@cache
def content(version: str, size: int = SIZE) -> bytes:
    """Returns the content of a file in a version: no two blocks are equal."""
    lines = "".join(f"{version} {number}\n" for number in range(size // 6))
    return lines.encode()[:size]


def read_file(path: Path) -> str | None:
    """Returns the version of a file, or None if there is no file; anything else is a failure."""
    if not path.exists():
        return None
    found = path.read_bytes()
    versions = [version for version in (OLD, NEW) if found == content(version)]
    assert versions, f"{len(found)} bytes are no version"
    return versions[0]


def read_folder(path: Path) -> str | None:
    """Does the same for a folder."""
    if not path.exists():
        return None
    found = {
        os.fspath(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }
    versions = [version for version in (OLD, NEW) if found == dict(_files(version))]
    assert versions, f"{ {name: len(part) for name, part in found.items()} } are no version"
    return versions[0]


def _files(version: str) -> Iterable[tuple[str, bytes]]:
    return ((name, content(f"{version} {name}", SIZE // len(_NAMES))) for name in _NAMES)


def fill(folder: Path, version: str) -> None:
    for name, part in _files(version):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(part)


# Which overload is meant, the options say: no type checker knows.
_open: Final[Callable[..., atomik.File[Any]]] = atomik.file


def text(destination: Path, version: str, body: Body, **options: Any) -> None:
    with _open(destination, encoding="utf-8", **options) as file, body:
        for line in content(version).decode().splitlines(keepends=True):
            file.write(line)


def binary(destination: Path, version: str, body: Body, **options: Any) -> None:
    with _open(destination, "wb", **options) as file, body:
        for start in range(0, SIZE, 999):
            file.write(content(version)[start : min(start + 999, SIZE)])


def large_buffer(destination: Path, version: str, body: Body, **options: Any) -> None:
    """All is still in the buffer when the body ends: its flush is the library's."""
    with _open(destination, "wb", buffering=2 * SIZE, **options) as file, body:
        file.write(content(version))


def unbuffered(destination: Path, version: str, body: Body, **options: Any) -> None:
    with _open(destination, "wb", buffering=0, **options) as file, body:
        write_all(file.write, content(version))


def descriptor(destination: Path, version: str, body: Body, **options: Any) -> None:
    with _open(destination, "wb", **options) as file, body:
        write_all(lambda part: os.write(file.fileno(), part), content(version))


def write_all(write: Callable[[memoryview], int | None], data: bytes | memoryview) -> None:
    """Writes until all is written, as write(2) wants it: a short write is no error."""
    rest = memoryview(data)
    while rest:
        written = write(rest)
        assert written
        rest = rest[written:]


def write_bytes(destination: Path, version: str, _: Body, **options: Any) -> None:
    atomik.write_bytes(destination, content(version), **options)


def write_text(destination: Path, version: str, _: Body, **options: Any) -> None:
    atomik.write_text(destination, content(version).decode(), encoding="utf-8", **options)


def folder(destination: Path, version: str, body: Body, **options: Any) -> None:
    with atomik.folder(destination, **options) as staging, body:
        fill(staging, version)


def tool_file(destination: Path, version: str, body: Body, **options: Any) -> None:
    with atomik.path(destination, **options) as staging, body:
        _run(content(version), "cp", "/dev/stdin", staging)


def tool_folder(destination: Path, version: str, body: Body, **options: Any) -> None:
    with atomik.path(destination, **options) as staging, body:
        staging.mkdir()
        _run(_archive(version), "tar", "-x", "-C", staging)


def _run(given: bytes, *command: str | Path) -> None:
    try:
        subprocess.run(command, input=given, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        # As one error for all ways: the tests only look at whose it is.
        raise OSError(f"{command[0]}: {error.returncode}, {error.stderr.decode()}") from error


def _archive(version: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, part in _files(version):
            member = tarfile.TarInfo(name)
            member.size = len(part)
            tar.addfile(member, io.BytesIO(part))
    return archive.getvalue()


_FILES: Final = (
    text,
    binary,
    large_buffer,
    unbuffered,
    descriptor,
    write_bytes,
    write_text,
    tool_file,
)
_FOLDERS: Final = (folder, tool_folder)
# Here come the writers that start from the present version (mode "a" and "r+", update, backup, group).

WAYS: Final = (
    *(
        Way(write.__name__, write, read_file, SIZE, write not in (write_bytes, write_text))
        for write in _FILES
    ),
    *(Way(write.__name__, write, read_folder, SIZE // len(_NAMES), True) for write in _FOLDERS),
)
WITH_BODY: Final = tuple(way for way in WAYS if way.has_body)

Present = str | None
PRESENT: Final[tuple[Present, ...]] = (None, OLD)


def each(ways: Iterable[Way]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", tuple(ways), ids=lambda way: str(way.name))


each_way = each(WAYS)


@dataclass(frozen=True)
class Report:
    """What one attempt has said: its error, where that came from, and what it warned of."""

    error: OSError | None
    body: Body
    warned: str

    @property
    def committed(self) -> bool:
        return self.error is None or bool(getattr(self.error, "committed", False))

    @property
    def is_of_the_library(self) -> bool:
        return self.error is not None and self.error is not self.body.error


@dataclass(frozen=True)
class Trial:
    """One destination in a folder of its own, written by one way over what was `present`."""

    way: Way
    destination: Path
    present: Present

    def prepare(self, durability: str = "none") -> None:
        """Brings the destination to where the trial starts."""
        self.destination.parent.mkdir(exist_ok=True)
        if self.present is not None:
            self.way.write(self.destination, self.present, Body(), durability=durability)

    def write(self, at_end: Callable[[], object] = _nothing, **options: Any) -> Report:
        """Writes the new version and judges: nothing is left and nothing had to be warned of."""
        report = self.attempt(at_end, **options)
        assert report.warned == ""
        self.judge(report)
        return report

    def attempt(self, at_end: Callable[[], object] = _nothing, **options: Any) -> Report:
        """Writes the new version, and looks at what it says only."""
        body = Body(at_end)
        error: OSError | None = None
        options = {"overwrite": self.present is not None, **options}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("error")
            warnings.simplefilter("always", atomik.errors.CleanupWarning)
            try:
                self.way.write(self.destination, NEW, body, **options)
            except OSError as raised:
                error = raised
        report = Report(error, body, "\n".join(str(warning.message) for warning in caught))
        if error is None:
            assert body.error is None
        elif report.is_of_the_library:
            assert error.filename == os.fspath(self.destination), repr(error)
        return report

    def judge(self, report: Report) -> None:
        """Asserts that the destination is complete, old or new as was reported.

        Nothing lies beside it unless a warning has said so: by its own name, or by the destination's
        where it cannot even be looked at.
        """
        expected = NEW if report.committed else self.present
        assert self.version() == expected, repr(report)
        left = leftovers(self.destination.parent)
        assert not left or os.fspath(self.destination.parent) in report.warned, repr(report)

    def write_again(self) -> None:
        """Writes the new version once more, over anything: the next writer needs no help."""
        self.way.write(self.destination, NEW, Body(), overwrite=True)
        assert self.version() == NEW
        assert leftovers(self.destination.parent) == []

    def version(self) -> str | None:
        return self.way.read(self.destination)
