"""Arguments that are not plain data: descriptors, objects that misbehave, buffers of every kind."""

import array
import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from fuzz.plays import Made


class Mischief(Exception):  # noqa: N818 - it stands for whatever a caller's own code raises
    """Raised by the objects made here; the library may only hand it on."""


class Path:
    """An `os.PathLike` that gives whatever it is told to."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __fspath__(self) -> object:
        return self._answer


class Raising:
    """Raises wherever an argument is looked at."""

    def _raise(self, *_: object) -> object:
        raise Mischief

    __fspath__ = __index__ = __int__ = __len__ = __iter__ = __buffer__ = _raise

    def __bool__(self) -> bool:
        raise Mischief


class Text(str):
    """A subclass with an answer of its own to everything that a `str` is asked."""

    __slots__ = ()

    def __str__(self) -> str:
        raise Mischief

    def encode(self, *_: object, **__: object) -> bytes:
        raise Mischief


class Number:
    """Not an `int`, but can be used as one."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


def made(argument: object, undo: ExitStack) -> object:
    """Returns what a play's argument stands for; `undo` closes what had to be opened."""
    if not isinstance(argument, Made):
        return argument
    if argument.how in _DESCRIPTORS:
        fd = _DESCRIPTORS[argument.how]()
        undo.callback(os.close, fd)
        return fd
    return _OBJECTS[argument.how](argument.of)


def _absolute(rest: object) -> bytes | str:
    # From the folder of the play, wherever the worker has it.
    cwd = os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    assert isinstance(rest, bytes | str)
    if isinstance(rest, bytes):
        return os.fsencode(cwd) + b"/" + rest
    return f"{cwd}/{rest}"


def _path(answer: object) -> Path:
    return Path(_OBJECTS[answer.how](answer.of) if isinstance(answer, Made) else answer)


def _closed(_: object) -> int:
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    return fd


def _count(of: object) -> int:
    assert isinstance(of, int)
    return of


def _unwritable(_: object) -> memoryview:
    return memoryview(bytes(range(256)))


def _released(_: object) -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def _nested(_: object) -> list[object]:
    inner: list[object] = []
    inner.append(inner)
    return inner


_OBJECTS: Final[Mapping[str, Callable[[object], object]]] = {
    "absolute": _absolute,
    "path": _path,
    "raising": lambda _: Raising(),
    "text": lambda of: Text(str(of)),
    "number": lambda of: Number(of if isinstance(of, int) else 0),
    "letters": lambda of: "n" * _count(of),
    "bytes": lambda of: b"n" * _count(of),
    "closed descriptor": _closed,
    "list in itself": _nested,
    "type": lambda _: str,
    "module": lambda _: sys,
    "function": lambda _: print,
    "view": _unwritable,
    "released view": _released,
    "every second byte": lambda _: memoryview(bytes(range(256)))[::2],
    "backward view": lambda _: memoryview(b"abc")[::-1],
    "two dimensions": lambda _: memoryview(bytes(12)).cast("B", (3, 4)),
    "no dimension": lambda _: memoryview(ctypes.c_double(1.5)),
    "empty view": lambda _: memoryview(b""),
    "doubles": lambda _: array.array("d", [1.5, 2.5]),
    "ctypes array": lambda _: (ctypes.c_uint16 * 5)(1, 2, 3, 4, 5),
    "ctypes structure": lambda _: ctypes.c_longdouble(0.5),
}


def _open(path: str, flags: int) -> Callable[[], int]:
    return lambda: os.open(path, flags)


def _removed_folder() -> int:
    os.mkdir("gone")
    fd = os.open("gone", os.O_RDONLY)
    os.rmdir("gone")
    return fd


_DESCRIPTORS: Final[Mapping[str, Callable[[], int]]] = {
    "folder": _open(".", os.O_RDONLY | os.O_DIRECTORY),
    "folder above": _open("..", os.O_RDONLY | os.O_DIRECTORY),
    "handle of a folder": _open(".", os.O_PATH | os.O_DIRECTORY),
    "read-only mount": _open("/", os.O_RDONLY | os.O_DIRECTORY),
    "processes": _open("/proc/self", os.O_RDONLY | os.O_DIRECTORY),
    "file": _open("/proc/self/exe", os.O_RDONLY),
    "device": _open("/dev/null", os.O_RDWR),
    "removed folder": _removed_folder,
}

DESCRIPTORS: Final = tuple(_DESCRIPTORS)
BUFFERS: Final = (
    "view",
    "released view",
    "every second byte",
    "backward view",
    "two dimensions",
    "no dimension",
    "empty view",
    "doubles",
    "ctypes array",
    "ctypes structure",
)
WRONG: Final = (
    "raising",
    "closed descriptor",
    "list in itself",
    "type",
    "module",
    "function",
    "view",
)
