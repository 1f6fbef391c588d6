"""Many writers at once: threads in forked processes, all told when to go on by one gate."""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

PROCESSES: Final = 8
THREADS: Final = 25
WRITERS: Final = PROCESSES * THREADS

Say: TypeAlias = Callable[[str], None]
Wait: TypeAlias = Callable[[], None]
Job: TypeAlias = Callable[[int, Say, Wait], None]

_SECONDS: Final = 100
# A write to a pipe of up to PIPE_BUF bytes is one piece: see pipe(7).
_LONGEST: Final = 1000


@dataclass
class Crowd:
    """Running writers, what they have said, and the gate that they may wait at."""

    pids: list[int]
    _reports: int
    _gate: int
    _rest: bytes = b""
    _said: list[tuple[int, str]] = field(default_factory=list)
    _gate_is_open: bool = False
    _killed: set[int] = field(default_factory=set)

    def said(self) -> list[str]:
        """Returns all words so far."""
        return [word for _, word in self._said]

    def listen(self, *, block: bool = True) -> bool:
        """Takes in what writers say; false once all of them have ended."""
        os.set_blocking(self._reports, block)
        try:
            piece = os.read(self._reports, 1 << 16)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            writer, word = line.decode().split(" ", maxsplit=1)
            self._said.append((int(writer), word))
        return piece != b""

    def open_gate(self) -> None:
        """Lets all go on that wait, now or later."""
        if not self._gate_is_open:
            self._gate_is_open = True
            os.close(self._gate)

    def kill(self, pid: int) -> None:
        """Ends one process of writers with SIGKILL, wherever they are."""
        os.kill(pid, signal.SIGKILL)
        self._killed.add(pid)

    def finish(self) -> list[str]:
        """Opens the gate, waits for the end of all, and returns all that was said."""
        self.open_gate()
        while self.listen():
            pass
        while self.pids:
            pid = self.pids.pop()
            _, status = os.waitpid(pid, 0)
            expected = -signal.SIGKILL if pid in self._killed else 0
            # A process may have ended just before it was to be killed.
            assert os.waitstatus_to_exitcode(status) in (expected, 0)
        return self.said()

    def close(self) -> None:
        """Ends what still runs."""
        self.open_gate()
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(self._reports)


@contextmanager
def crowd(
    job: Job, *, processes: int = PROCESSES, threads: int = THREADS
) -> Generator[Crowd, None, None]:
    """Runs `job` in every thread of every process; none of them outlives the context."""
    reports, say = os.pipe()
    wait, gate = os.pipe()
    crowd = Crowd([], reports, gate)
    try:
        for process in range(processes):
            with warnings.catch_warnings():
                # The child of a process with threads starts its own and ends without pytest.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                try:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(_SECONDS)
                    os.close(reports)
                    os.close(gate)
                    _run(job, range(process * threads, (process + 1) * threads), say, wait)
                finally:
                    os._exit(0)
            crowd.pids.append(pid)
        os.close(say)
        os.close(wait)
        yield crowd
    finally:
        crowd.close()


def _run(job: Job, numbers: range, reports: int, gate: int) -> None:
    def work(number: int) -> None:
        def say(word: str) -> None:
            os.write(reports, f"{number} {word[:_LONGEST]}".replace("\n", " ").encode() + b"\n")

        def wait() -> None:
            assert os.read(gate, 1) == b""

        try:
            job(number, say, wait)
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
