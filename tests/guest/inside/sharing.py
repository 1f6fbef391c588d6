"""The library's calls, each publishing versions that can be told to be whole without the library.

A file is whole if it consists of blocks, each written by one call; a folder, if it has all its files,
and all were written by one call. Which call is said by a token: any word.
"""

import errno
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import atomik
import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

_LINES: Final = 50
_NAMES: Final = ("one", "two", "three", "inner/four", "inner/five")

Body = Callable[[], object]


def nothing() -> None:
    """Is the body of a call that has nothing more to do."""


@dataclass(frozen=True)
class Call:
    """A call that publishes; `publish(destination, token, body)` runs the body amid the writing."""

    name: str
    publish: Callable[..., None]
    makes_folder: bool = False
    has_body: bool = True
    needs_old: bool = False


def block(token: str) -> bytes:
    return f"{token}\n".encode() * _LINES


def _file(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    options.setdefault("overwrite", True)
    _through(destination, "wb", token, body, **options)


def _append(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    _through(destination, "ab", token, body, **options)


def _through(
    destination: Path, mode: atomik.OpenMode, token: str, body: Body, **options: Any
) -> None:
    guard: Any = atomik.file(destination, mode, **options)
    content = block(token)
    with guard as staging:
        staging.write(content[:100])
        staging.flush()
        body()
        staging.write(content[100:])


def _write_bytes(destination: Path, token: str, _body: Body = nothing, **options: Any) -> None:
    atomik.write_bytes(destination, block(token), overwrite=True, **options)


def _backup(destination: Path, token: str, _body: Body = nothing, **options: Any) -> None:
    backup = f"{destination.name}.old"
    atomik.write_bytes(destination, block(token), overwrite=True, backup=backup, **options)


def _path(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    with atomik.path(destination, overwrite=True, **options) as staging:
        body()
        staging.write_bytes(block(token))


def _folder(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    with atomik.folder(destination, overwrite=True, **options) as staging:
        _fill(staging, token, body)


def _path_to_folder(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    with atomik.path(destination, overwrite=True, **options) as staging:
        staging.mkdir()
        _fill(staging, token, body)


def _update(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    with atomik.folder(destination, update=True, **options) as staging:
        _fill(staging, token, body)


def _group(destination: Path, token: str, body: Body = nothing, **options: Any) -> None:
    with atomik.group(**options) as group:
        group.write_bytes(destination, block(token), overwrite=True)
        with group.file(f"{destination}.second", "wb", overwrite=True) as second:
            body()
            second.write(block(token))


def _fill(folder: Path, token: str, body: Body) -> None:
    (folder / "inner").mkdir(exist_ok=True)
    for name in _NAMES:
        if name == "three":
            body()
        (folder / name).write_bytes(block(token))


CALLS: Final[Mapping[str, Call]] = {
    call.name: call
    for call in (
        Call("write_bytes", _write_bytes, has_body=False),
        Call("file", _file),
        Call("append", _append),
        Call("backup", _backup, has_body=False),
        Call("path", _path),
        Call("group", _group),
        Call("folder", _folder, makes_folder=True),
        Call("path to a folder", _path_to_folder, makes_folder=True),
        Call("update", _update, makes_folder=True, needs_old=True),
    )
}


_IN_CI: Final = ("file", "group", "folder", "update")


def in_turn(calls: Iterable[Call]) -> "list[ParameterSet]":
    """Returns calls as a test's parameters; those that share their way with others are `slow`."""
    return [
        pytest.param(call, id=call.name, marks=() if call.name in _IN_CI else pytest.mark.slow)
        for call in calls
    ]


def broken(folder: Path) -> list[str]:
    """Names what has been published in a folder and is not whole, and says why."""
    found: list[str] = []
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith((".atomik", ".nfs")):
            why = _broken_folder(entry) if entry.is_dir() else _broken_file(entry.read_bytes())
            if why:
                found.append(f"{entry.name}: {why}")
    return found


def tokens(path: Path) -> set[str]:
    """Returns the words of all calls that have a part in what is published here."""
    files = [path / name for name in _NAMES] if path.is_dir() else [path]
    return {word for file in files for word in file.read_text().split("\n") if word}


def _broken_file(content: bytes) -> str:
    lines = content.decode().splitlines()
    if not lines:
        return "empty"
    for start in range(0, len(lines), _LINES):
        part = lines[start : start + _LINES]
        if len(part) != _LINES or len(set(part)) != 1:
            return f"{len(part)} lines of {sorted(set(part))} where a block of one begins"
    return ""


def _broken_folder(folder: Path) -> str:
    there = sorted(
        os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()
    )
    if there != sorted(_NAMES):
        return f"it has {there}"
    if len(tokens(folder)) != 1:
        return f"a mix of {sorted(tokens(folder))}"
    return "".join(_broken_file((folder / name).read_bytes()) for name in _NAMES)


def fork(job: Callable[[], object]) -> int:
    """Runs a job in a process of its own, which ends with it and without any destructor."""
    with warnings.catch_warnings():
        # The child of a process with threads does nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _run(job)
    return pid


def _run(job: Callable[[], object]) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(200)
        job()
        status = 0
    finally:
        os._exit(status)


def killed_in_its_body(call: Call, destination: Path, token: str) -> None:
    """Lets a process begin a call and kills it (-9) in the body."""
    pid = fork(
        lambda: call.publish(destination, token, lambda: os.kill(os.getpid(), signal.SIGKILL))
    )
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def word(error: OSError) -> str:
    """Returns an error's class and number in words."""
    return f"{type(error).__name__} {errno.errorcode.get(error.errno or 0, error.errno)}"
