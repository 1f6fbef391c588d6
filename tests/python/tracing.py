"""The system calls of a program between its marks, as strace(1) sees them."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_MARK: Final = "/atomik-mark"

# The allocator's and the interpreter's.
_NOT_THE_LIBRARYS: Final = frozenset(
    [
        "brk",
        "mmap",
        "munmap",
        "mremap",
        "madvise",
        "mprotect",
        "futex",
        "sched_yield",
        "rt_sigaction",
        "rt_sigprocmask",
    ]
)


@dataclass(frozen=True)
class Call:
    name: str
    text: str
    """The whole line, descriptors with their paths: `fsync(4</tmp/x>) = 0`."""

    @property
    def first_path(self) -> str:
        """The path of the descriptor that is the first argument, at the time of the call."""
        found = re.match(r"\w+\(\w+<([^>]*)>(\(deleted\))?", self.text)
        return found[1] + (found[2] or "") if found else ""


def mark() -> None:
    """Separates, in the traced program, what is before from what is after."""
    with suppress(FileNotFoundError):
        os.stat(_MARK)


def calls_between_marks(program: str, folder: Path, *arguments: str) -> list[list[Call]]:
    """Runs a program in a folder; returns its calls, in order, between each two marks."""
    if reason := _why_not():
        pytest.skip(reason)
    output = folder.parent / f"{folder.name}.strace"
    command = ["strace", "-f", "-y", "-s", "256", "-e", "signal=none", "-o", str(output)]
    # By absolute paths: the program runs in another folder.
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command += [sys.executable, "-c", program, *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    pieces: list[list[Call]] = [[]]
    for line in output.read_text("utf-8", "surrogateescape").splitlines():
        text = line.split(maxsplit=1)[1]  # behind the process's id
        found = re.match(r"(\w+)\(", text)  # no "resumed" and no "exited"
        if f'"{_MARK}"' in text:
            pieces.append([])
        elif found and found[1] not in _NOT_THE_LIBRARYS:
            pieces[-1].append(Call(found[1], text))
    output.unlink()
    return pieces[1:-1]


@cache
def _why_not() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()}"
