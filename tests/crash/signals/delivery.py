"""Delivers a signal to a process at a chosen system call of its own.

A forked child waits until strace(1) is attached, runs an operation between two marks, and reports.
Traced once, the operation is a list of calls; then it is run again for each of them, and strace
delivers the signal when that call is entered: it is pending in the call, which is interrupted if it
waits, and is handled right after it.
"""

import gc
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NoReturn, Self, TypeAlias

from support.guard_kinds import AnyGuard

_BEGIN: Final = "/atomik-begin"
_END: Final = "/atomik-end"
_READY: Final = b"ready"

Operation: TypeAlias = Callable[[list[AnyGuard]], None]
"""What is run; it adds its guard to the list, so that what it says of itself can be asked."""

# Calls of the interpreter and the allocator, not of the operation: they come at any moment, not the
# same ones every time.
_NOT_OURS: Final = frozenset(
    {
        "brk",
        "clock_gettime",
        "exit_group",
        "futex",
        "getpid",
        "getrandom",
        "gettid",
        "getuid",
        "madvise",
        "mmap",
        "mprotect",
        "mremap",
        "munmap",
        "read",
        "restart_syscall",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_yield",
        "sigaltstack",
    }
)


@dataclass(frozen=True)
class Call:
    """One system call: its name, which one of that name it is (from 1), and strace's line."""

    name: str
    occurrence: int
    text: str

    def __str__(self) -> str:
        return f"{self.name} #{self.occurrence} {self.text}"


@dataclass(frozen=True)
class Report:
    """What a child says: its guard's `committed`, the exception, and those that nobody could raise."""

    committed: bool | None
    raised: str | None
    unraisable: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code and, if it lived long enough, its report."""

    status: int
    report: Report | None


@cache
def why_not() -> str | None:
    """Says why no signal can be delivered here, if so."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-o", os.devnull, "-e", "inject=fsync:signal=CONT", "true"],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()}"


def calls(operation: Operation, trace: Path) -> list[Call]:
    """Runs an operation undisturbed and lists its calls, which strace writes to a file."""
    ending = _run(operation, lambda: None, ["-o", str(trace), "-s", "80"])
    assert ending.report is not None, ending
    assert ending.report.raised is None, ending
    counts: Counter[str] = Counter()
    found: list[Call] = []
    inside = False
    for line in trace.read_text("utf-8", "surrogateescape").splitlines():
        if (named := re.match(r"(\w+)\(", line)) is None:
            continue
        counts[named[1]] += 1
        inside = (inside or f'"{_BEGIN}"' in line) and f'"{_END}"' not in line
        if inside and f'"{_BEGIN}"' not in line and named[1] not in _NOT_OURS:
            found.append(Call(named[1], counts[named[1]], line))
    return found


def deliver(
    number: signal.Signals, call: Call, operation: Operation, prepare: Callable[[], object]
) -> Ending:
    """Runs an operation in a child that gets a signal at one of its calls.

    `prepare` sets the child's handlers.
    """
    what = f"inject={call.name}:signal={number.name}:when={call.occurrence}"
    options = ["-o", os.devnull, "-e", f"trace={call.name}", "-e", what]
    return _run(operation, prepare, options)


def _run(operation: Operation, prepare: Callable[[], object], options: list[str]) -> Ending:
    go_reading, go = os.pipe()
    answers, answering = os.pipe()
    with warnings.catch_warnings():
        # The child of a process with threads does nothing here but its operation, and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(go)
        _child(operation, prepare, go_reading, answering)
    os.close(go_reading)
    os.close(answering)
    with ExitStack() as undo:
        pipe = undo.enter_context(open(answers, "rb"))
        reaped = undo.enter_context(_Child(pid))
        undo.callback(os.close, go)
        # What it calls before it waits would be counted or not, as strace is early or late.
        assert pipe.read(len(_READY)) == _READY
        command = ["strace", *options, "-p", str(pid)]
        tracer = undo.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        undo.callback(tracer.kill)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        assert "attached" in said, said
        os.write(go, b"x")
        answer = pipe.read()
        status = reaped.wait()
    return Ending(status, pickle.loads(answer) if answer else None)


class _Child:
    """A child that is waited for, or killed if the test gives up before that."""

    def __init__(self, pid: int) -> None:
        self._pid: int | None = pid

    def wait(self) -> int:
        assert self._pid is not None
        _, status = os.waitpid(self._pid, 0)
        self._pid = None
        return os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self.wait()


def _child(
    operation: Operation, prepare: Callable[[], object], go: int, answering: int
) -> NoReturn:
    try:
        unraisable: list[str] = []
        sys.unraisablehook = lambda event: unraisable.append(repr(event.exc_value))
        # An interrupt between the end of `__enter__` and the body leaves the guard to its destructor, which says so.
        warnings.filterwarnings("ignore", ".*use 'with'", ResourceWarning)
        guards: list[AnyGuard] = []
        prepare()
        # The collector runs where it is told to, so that every run makes the same calls, and over what
        # the operation makes, not over all of pytest.
        gc.disable()
        gc.freeze()
        os.write(answering, _READY)
        # Nothing comes of a parent that has ended.
        if os.read(go, 1) == b"x":
            report = _perform(operation, guards, unraisable)
            with open(answering, "wb") as pipe:
                pickle.dump(report, pipe)
    finally:
        os._exit(0)


def _perform(operation: Operation, guards: list[AnyGuard], unraisable: list[str]) -> Report:
    raised = None
    try:
        _mark(_BEGIN)
        operation(guards)
        _mark(_END)
    except BaseException as error:
        raised = type(error).__name__
    # One that comes later than it should must not get this process past its end.
    for number in signal.Signals:
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    committed = guards[0].committed if guards else None
    guards.clear()
    gc.collect()
    return Report(committed, raised, tuple(unraisable))


def _mark(name: str) -> None:
    with suppress(FileNotFoundError):
        os.stat(name)
