"""Programs that tests run and kill: `python guard_programs.py NAME KIND DESTINATION [ARGUMENT]`.

Each enters a guard over the version "old" and does in its body what its name says.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from support.guard_kinds import KINDS, AnyGuard, Kind


def fork(kind: Kind, destination: str, ending: str) -> None:
    """Forks in the body, lets the child end as asked, commits, and reports the child's status."""
    guard = kind.open(destination, overwrite=True)
    with guard as staging:
        kind.write(staging, "half")
        pid = os.fork()
        if pid == 0:
            CHILD_ENDINGS[ending](guard)
        else:
            print_status(pid)
            kind.write(staging, "new")


def fork_while_entered_by_hand(kind: Kind, destination: str, ending: str) -> None:
    """Does the same with a guard that no `with` ends: in the child only its destructor runs."""
    guard = kind.open(destination, overwrite=True)
    staging = guard.__enter__()
    kind.write(staging, "half")
    pid = os.fork()
    if pid == 0:
        CHILD_ENDINGS[ending](guard)
        return
    print_status(pid)
    kind.write(staging, "new")
    guard.commit()


def print_status(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status))


def fork_and_leave_the_child_running(kind: Kind, destination: str, _: str) -> None:
    """Commits while a child that was forked in the body still lives, and prints its pid."""
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "new")
        pid = os.fork()
        if pid == 0:
            signal.pause()
    print(pid, flush=True)


def wait(kind: Kind, destination: str, _: str) -> None:
    """Says that the body has begun and waits to be killed."""
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        print("in the body", flush=True)
        sys.stdin.read()


def end_with_an_open_guard(kind: Kind, destination: str, _: str) -> None:
    """Ends the interpreter while a guard is open."""
    KEPT.append(kind.open(destination, overwrite=True))
    kind.write(KEPT[0].__enter__(), "half")


def end_with_an_unfinished_generator(kind: Kind, destination: str, _: str) -> None:
    """Ends the interpreter while a generator stands in a body."""

    def body() -> Any:
        with kind.open(destination, overwrite=True) as staging:
            kind.write(staging, "half")
            yield

    KEPT.append(body())
    next(KEPT[0])


def be_interrupted(kind: Kind, destination: str, _: str) -> None:
    """Waits in the body for Ctrl-C, even if the parent ignored it (a shell's background job)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        print("in the body", flush=True)
        signal.pause()


KEPT: Final[list[Any]] = []


def _raise(_: AnyGuard) -> NoReturn:
    raise LookupError("in the child")


def _execute(_: AnyGuard) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.exit(3)"])


CHILD_ENDINGS: Final[dict[str, Callable[[AnyGuard], object]]] = {
    "sys.exit": lambda _: sys.exit(3),
    "os._exit": lambda _: os._exit(3),
    "exception": _raise,
    "falling out": lambda _: None,
    "exec": _execute,
    "SIGKILL": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "commit": lambda guard: guard.commit(),
    "rollback": lambda guard: guard.rollback(),
}

_PROGRAMS: Final[dict[str, Callable[[Kind, str, str], None]]] = {
    program.__name__: program
    for program in (
        fork,
        fork_while_entered_by_hand,
        fork_and_leave_the_child_running,
        wait,
        end_with_an_open_guard,
        end_with_an_unfinished_generator,
        be_interrupted,
    )
}

if __name__ == "__main__":
    name, kind, destination, *argument = sys.argv[1:]
    _PROGRAMS[name](KINDS[kind], destination, "".join(argument))
