"""Forks a process for each run of an operation: `python -m inject.server`, then a request a line.

A fork of an interpreter that has imported everything asks the kernel, from the moment it starts,
for the same calls every time: the N-th one of a kind can be counted, and a run costs milliseconds.

    prepare NAME WORLD    runs the operation in the server itself, so that what is asked of the kernel
                          once in a process is over; answers `prepared`
    run NAME WORLD        forks. The fork says `ready PID`, waits for one byte so that strace can be
                          attached meanwhile, runs the operation between two marks, and answers
                          `report JSON`; when it has ended, the server answers `ended STATUS`

The words of a line are separated by tabs.
"""

import contextlib
import gc
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from inject import careless, operations
from inject.operations import AnyGuard, Operation

BEGIN = "/atomik-begin"
END = "/atomik-end"


def _mark(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.stat(name)


def _descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    for fd in os.listdir("/proc/self/fd"):
        # The one that lists them is closed by now.
        with contextlib.suppress(FileNotFoundError):
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def _run(operation: Operation, here: Path) -> dict[str, Any]:
    unraisable: list[str] = []
    sys.unraisablehook = lambda event: unraisable.append(repr(event.exc_value))
    guards: list[AnyGuard] = []

    def keep(guard: AnyGuard) -> AnyGuard:
        guards.append(guard)
        return guard

    raised: BaseException | None = None
    before = _descriptors()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _say("ready", str(os.getpid()))
        # Not read(2), which operations call: strace attaches just before this call or in it, and may count it or not.
        os.readv(0, [bytearray(1)])
        _mark(BEGIN)
        try:
            operation.run(here, keep)
        except BaseException as error:
            raised = error.with_traceback(None)
            raised.__context__ = None
        committed = [guard.committed for guard in guards]
        guards.clear()
        # Here and nowhere else, so that runs are the same.
        gc.collect()
        _mark(END)
    return {
        "error": None
        if raised is None
        else {
            "type": type(raised).__name__,
            "errno": getattr(raised, "errno", None),
            "committed": getattr(raised, "committed", False),
            "message": str(raised),
        },
        "committed": committed[0] if committed else None,
        "warnings": [f"{warning.category.__name__}: {warning.message}" for warning in warned],
        "unraisable": unraisable,
        "leaked": {fd: to for fd, to in _descriptors().items() if before.get(fd) != to},
    }


def _say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


def _prepare(operation: Operation, here: Path) -> None:
    with contextlib.suppress(LookupError, OSError):
        operation.run(here, lambda guard: guard)
    gc.collect()
    # The collector of a fork would write to, and so copy, every page that holds an object.
    gc.freeze()
    _say("prepared")


def _fork(operation: Operation, here: Path) -> None:
    pid = os.fork()
    if pid == 0:
        _work(operation, here)
    _, status = os.waitpid(pid, 0)
    _say("ended", str(os.waitstatus_to_exitcode(status)))


def _work(operation: Operation, here: Path) -> NoReturn:
    try:
        _say("report", json.dumps(_run(operation, here)))
    finally:
        os._exit(0)


def main() -> None:
    every = {**operations.ALL, **careless.ALL}
    gc.disable()
    os.umask(0o022)
    # Unbuffered: the byte after a line is for the fork.
    with open(0, "rb", buffering=0, closefd=False) as requests:
        while line := requests.readline():
            request, name, where = os.fsdecode(line.rstrip(b"\n")).split("\t")
            operation, here = every[name], Path(where)
            with operation.neighbour(here):
                (_prepare if request == "prepare" else _fork)(operation, here)


if __name__ == "__main__":
    main()
