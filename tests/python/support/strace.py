"""strace(1): which system calls a program made, and a call that fails on purpose."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_MARK: Final = "/atomik-mark"

# A name beside a destination, or of a slot in a room.
_OURS: Final = re.compile(r'"(\.atomik-[^"]*|[0-9a-f]{16})"')


NOT_THE_LIBRARYS: Final = frozenset(
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
"""The calls of the allocator, and of the interpreter's locks and signal handlers."""


@dataclass(frozen=True)
class Call:
    """One system call: its name, which one of that name it is (from 1), and strace's line."""

    name: str
    occurrence: int
    text: str

    @property
    def first_path(self) -> str:
        """The path of the descriptor that is the first argument, at the time of the call (`strace -y`)."""
        found = re.match(r"\w+\(\w+<([^>]*)>(\(deleted\))?", self.text)
        return found[1] + (found[2] or "") if found else ""

    def removes_a_slot(self) -> bool:
        """Is this the removal of one of the library's own names?"""
        return self.name in ("unlinkat", "unlink", "rmdir") and _OURS.search(self.text) is not None

    def __str__(self) -> str:
        return f"{self.name} #{self.occurrence} {self.text}"


@dataclass(frozen=True)
class Injection:
    """What happens instead of a call: an error (by its name), or the end of the process."""

    call: Call
    error: str | None = None

    def options(self) -> list[str]:
        # A signal at the entry of a call: when it is SIGKILL, the kernel does not carry out the call
        # (ptrace(2): a pending fatal signal aborts it).
        what = "signal=KILL" if self.error is None else f"error={self.error}"
        name = self.call.name
        return ["-e", f"trace={name}", "-e", f"inject={name}:{what}:when={self.call.occurrence}"]

    def __str__(self) -> str:
        return f"{self.error or 'SIGKILL'} at {self.call}"


@cache
def why_not() -> str | None:
    """Says why nothing can be traced here, if so."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()}"


@contextmanager
def attached(pid: int, output: Path, options: list[str]) -> Iterator[None]:
    """Traces a process from here on; leaving it waits for the end of that process."""
    command = ["strace", "-o", str(output), *options, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            assert "attached" in said, said
            yield
            # It says no more, and ends with its tracee.
            tracer.stderr.read()
        finally:
            tracer.kill()


def calls(output: Path) -> list[Call]:
    """Reads what was traced."""
    return _parsed(_lines(output))


def mark() -> None:
    """Separates, in the traced program, what is before from what is after."""
    with suppress(FileNotFoundError):
        os.stat(_MARK)


def calls_between_marks(program: str, folder: Path, *arguments: str) -> list[list[Call]]:
    """Runs a program in a folder; returns the library's calls, in order, between each two marks.

    Descriptors are shown with their paths: `fsync(4</tmp/x>) = 0`.
    """
    if reason := why_not():
        pytest.skip(reason)
    output = folder.parent / f"{folder.name}.strace"
    command = ["strace", "-f", "-y", "-s", "256", "-e", "signal=none", "-o", str(output)]
    # By absolute paths: the program runs in another folder.
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command += [sys.executable, "-c", program, *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    pieces: list[list[str]] = [[]]
    for line in _lines(output):
        text = line.split(maxsplit=1)[1]  # behind the process's id
        if f'"{_MARK}"' in text:
            pieces.append([])
        else:
            pieces[-1].append(text)
    output.unlink()
    return [
        [call for call in _parsed(piece) if call.name not in NOT_THE_LIBRARYS]
        for piece in pieces[1:-1]
    ]


def _lines(output: Path) -> list[str]:
    return output.read_text("utf-8", "surrogateescape").splitlines()


def _parsed(lines: Iterable[str]) -> list[Call]:
    counts: Counter[str] = Counter()
    found: list[Call] = []
    for line in lines:
        if named := re.match(r"(\w+)\(", line):  # no "resumed" and no "exited"
            counts[named[1]] += 1
            found.append(Call(named[1], counts[named[1]], line))
    return found
