"""Programs that end in every way there is: `python programs.py NAME KIND DESTINATION`.

Each starts over the version "old" and has a guard open, or a commit under way, when it ends.
"""

import atexit
import faulthandler
import fcntl
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from support import slot_names
from support.guard_kinds import KINDS, Kind


def exit_at_once(kind: Kind, destination: str) -> NoReturn:
    """Ends without any clean-up of the interpreter's."""
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        os._exit(3)


def exit_in_order(kind: Kind, destination: str) -> NoReturn:
    """Ends by SystemExit, which leaves the body."""
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        sys.exit(3)


def abort(kind: Kind, destination: str) -> None:
    """Ends by SIGABRT, with a handler that prints the stacks."""
    faulthandler.enable()
    with kind.open(destination, overwrite=True) as staging:
        kind.write(staging, "half")
        os.abort()


def raise_in_a_thread(kind: Kind, destination: str) -> None:
    """Lets a thread's body fail; the main thread goes on."""

    def body() -> None:
        with kind.open(destination, overwrite=True) as staging:
            kind.write(staging, "half")
            raise LookupError("in the thread")

    threading.excepthook = lambda event: print(event.exc_type.__name__)
    _join(body)


def exit_in_a_thread(kind: Kind, destination: str) -> None:
    """Ends a thread, not the program, in a body (SystemExit ends a thread silently)."""

    def body() -> None:
        with kind.open(destination, overwrite=True) as staging:
            kind.write(staging, "half")
            sys.exit(3)

    _join(body)


def finish_in_a_thread(kind: Kind, destination: str) -> None:
    """Leaves a body to a thread that the interpreter waits for at its end."""
    in_the_body = threading.Event()

    def body() -> None:
        with kind.open(destination, overwrite=True) as staging:
            in_the_body.set()
            threading.main_thread().join()
            kind.write(staging, "new")

    threading.Thread(target=body).start()
    in_the_body.wait()


def end_with_a_daemon_in_a_body(kind: Kind, destination: str) -> None:
    """Ends while a daemon stands in a body."""
    in_the_body = threading.Event()

    def body() -> None:
        with kind.open(destination, overwrite=True) as staging:
            kind.write(staging, "half")
            in_the_body.set()
            threading.Event().wait()

    threading.Thread(target=body, daemon=True).start()
    in_the_body.wait()


def end_with_a_daemon_in_a_generator(kind: Kind, destination: str) -> None:
    """Ends while a daemon holds a generator that stands in a body."""
    in_the_body = threading.Event()

    def versions() -> Iterator[None]:
        with kind.open(destination, overwrite=True) as staging:
            kind.write(staging, "half")
            yield

    def body() -> None:
        generator = versions()
        next(generator)
        in_the_body.set()
        threading.Event().wait()

    threading.Thread(target=body, daemon=True).start()
    in_the_body.wait()


def end_with_a_daemon_in_commits(kind: Kind, destination: str) -> None:
    """Ends while a daemon publishes one version after the other."""
    published = threading.Event()

    def publish() -> None:
        for number in itertools.count():
            kind.publish(Path(destination), "new", overwrite=True)
            if number == 3:
                published.set()

    threading.Thread(target=publish, daemon=True).start()
    published.wait()


def commit_at_exit(kind: Kind, destination: str) -> None:
    """Commits in a function that atexit calls."""
    guard = kind.open(destination, overwrite=True)
    staging = guard.__enter__()

    def commit() -> None:
        kind.write(staging, "new")
        guard.commit()

    atexit.register(commit)


def commit_while_finalizing(kind: Kind, destination: str) -> None:
    """Lets a daemon's commit return when the interpreter no longer gives it back the GIL."""
    name = slot_names.lock(Path(destination))
    lock = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    opened = threading.Event()

    def body() -> None:
        with kind.open(destination, overwrite=True) as staging:
            kind.write(staging, "new")
            opened.set()

    threading.Thread(target=body, daemon=True).start()
    opened.wait()
    _wait_for(_is_waiting_for_a_lock)
    # What a module holds may live on in the daemon's stack; this does not.
    sys.modules["release"] = _Release(lock, name.parent)  # type: ignore[assignment]


class _Release:
    """Lets the commit go on when the interpreter takes its modules apart, and waits for its return."""

    def __init__(self, lock: int, folder: Path) -> None:
        # By then the names in modules may be gone.
        listdir, path, sleep, wait_for, close = (
            os.listdir,
            str(folder),
            time.sleep,
            _wait_for,
            os.close,
        )

        def is_clean() -> bool:
            return not any(name.startswith(".atomik-") for name in listdir(path))

        def release() -> None:
            close(lock)
            wait_for(is_clean)
            # What is left of the call is to ask for the GIL, which is free in each of these.
            for _ in range(20):
                sleep(0.005)

        self._release = release

    def __del__(self) -> None:
        self._release()


def _wait_for(
    condition: Callable[[], bool], sleep: Callable[[float], None] = time.sleep, times: int = 400
) -> None:
    """Looks now and then, with the GIL free meanwhile; gives up, so that nothing hangs."""
    for _ in range(times):
        if condition():
            return
        sleep(0.005)


def _is_waiting_for_a_lock() -> bool:
    # Who waits has an arrow before the kind of lock (proc_locks(5)).
    waiting = (line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)
    return any(str(os.getpid()) in line.split() for line in waiting)


def _join(body: Callable[[], None]) -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


PROGRAMS: Final[dict[str, Callable[[Kind, str], object]]] = {
    program.__name__: program
    for program in (
        exit_at_once,
        exit_in_order,
        abort,
        raise_in_a_thread,
        exit_in_a_thread,
        finish_in_a_thread,
        end_with_a_daemon_in_a_body,
        end_with_a_daemon_in_a_generator,
        end_with_a_daemon_in_commits,
        commit_at_exit,
        commit_while_finalizing,
    )
}

if __name__ == "__main__":
    name, kind, destination = sys.argv[1:]
    PROGRAMS[name](KINDS[kind], destination)
