"""Calls that break a promise each: the fuzzing must see every one of them, or it proves nothing."""

import ctypes
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import atomik


class _Panic(BaseException):
    """What PyO3 makes of a panic is no `Exception` either."""


class _Unsound:
    """Raises where nobody can catch it."""

    def __del__(self) -> None:
        raise KeyError


def _system_error(*_: object, **__: object) -> NoReturn:
    raise SystemError


def _panic(*_: object, **__: object) -> NoReturn:
    raise _Panic


def _leave_a_file(*_: object, **__: object) -> None:
    with open(".atomik-0.dest~", "w"):
        raise OSError


def _write_half(path: str, data: bytes, **_: object) -> None:
    with open(path, "wb") as file:
        file.write(data[:-1])


def _forget_a_folder(path: str, **_: object) -> None:
    os.makedirs(os.path.join(path, "deep", "left"))
    with open(os.path.join(path, "inside"), "wb") as file:
        file.write(b"new")


def _fail_after_writing(path: str, data: bytes, **_: object) -> NoReturn:
    with open(path, "wb") as file:
        file.write(data)
    raise OSError


def _say_nothing(*_: object, **__: object) -> None:
    """Neither writes nor refuses."""


def _touch_a_bystander(path: str, data: bytes, **_: object) -> None:
    atomik.write_bytes(path, data)
    with open("bystander", "ab") as file:
        file.write(b"!")


def _warn(path: str, data: bytes, **_: object) -> None:
    atomik.write_bytes(path, data)
    warnings.warn("something is left", atomik.CleanupWarning, stacklevel=2)


def _leak(*_: object, **__: object) -> NoReturn:
    os.dup(0)
    raise OSError


def _raise_in_a_destructor(*_: object, **__: object) -> NoReturn:
    _Unsound()
    raise OSError


def _raise_in_a_thread(*_: object, **__: object) -> NoReturn:
    thread = threading.Thread(target=_system_error)
    thread.start()
    thread.join()
    raise OSError


def _leave_a_thread(*_: object, **__: object) -> NoReturn:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    raise OSError


def _copy(old: str, new: str, **_: object) -> None:
    shutil.copyfile(old, new)
    os.unlink(old)


def _lose(a: str, b: str, **_: object) -> None:
    os.unlink(a)
    os.unlink(b)


def _forget_what_was_there(path: str, **_: object) -> atomik.Folder:
    return atomik.folder(path, overwrite=True)


def _spoil_the_backup(path: str, data: bytes, **_: object) -> None:
    atomik.write_bytes(path, data, overwrite=True, backup="before")
    with open("before", "ab") as file:
        file.write(b"!")


def _print(*_: object, **__: object) -> NoReturn:
    # As Rust does when it panics, even where somebody catches it.
    print("thread panicked", file=sys.stderr)
    raise OSError


def _abort(*_: object, **__: object) -> None:
    os.abort()


def _crash(*_: object, **__: object) -> None:
    ctypes.string_at(8)


def _hang(*_: object, **__: object) -> None:
    threading.Event().wait()


@dataclass(frozen=True)
class Sabotage:
    """What is called instead, what the judgement must then say, and what is played well: a call, or an option."""

    instead: Callable[..., Any]
    seen_as: str
    well: str = "write_bytes"


SABOTAGE: Final[Mapping[str, Sabotage]] = {
    "system error": Sabotage(_system_error, "call raised SystemError"),
    "panic": Sabotage(_panic, "call raised _Panic"),
    "leave a file": Sabotage(_leave_a_file, "is left"),
    "write half": Sabotage(_write_half, "and should be b'new'"),
    "forget a folder": Sabotage(_forget_a_folder, "/right': None}", "folder"),
    "fail after writing": Sabotage(_fail_after_writing, "has changed without a commit"),
    "say nothing": Sabotage(_say_nothing, "nothing has been published"),
    "forget what was there": Sabotage(_forget_what_was_there, "and should be", "update"),
    "spoil the backup": Sabotage(_spoil_the_backup, "and should be", "backup"),
    "touch a bystander": Sabotage(_touch_a_bystander, "more than the destination has changed"),
    "warn": Sabotage(_warn, "it warns that it could not clean up"),
    "leak": Sabotage(_leak, "descriptors are left open"),
    "raise in a destructor": Sabotage(_raise_in_a_destructor, "a destructor raised KeyError"),
    "raise in a thread": Sabotage(_raise_in_a_thread, "a thread ended with SystemError"),
    "leave a thread": Sabotage(_leave_a_thread, "threads are left"),
    "print": Sabotage(_print, "printed: thread panicked"),
    "abort": Sabotage(_abort, "the worker ended with -6"),
    "crash": Sabotage(_crash, "the worker ended with -11"),
    "hang": Sabotage(_hang, "Timeout"),
    "copy instead of renaming": Sabotage(_copy, "something new has appeared", "rename"),
    "lose what is exchanged": Sabotage(_lose, "more than one thing is gone", "exchange"),
}
