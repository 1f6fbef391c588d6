"""The two people of these tests, and the ways in which one attacks what the other does.

An attacker is a forked process of another ordinary user. It either holds something (a lock, a lease)
for as long as the test lasts, or repeats one step as fast as it can while the victim publishes.
"""

import mmap
import os
import signal
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NoReturn, TypeVar

import atomik
import pytest
from support import kernel
from support.processes import User, run_as

VICTIM: Final = User(64101, 64101)
ATTACKER: Final = User(64102, 64102)

SECONDS: Final = float(os.environ.get("ATOMIK_RACE_SECONDS", "5"))
MINUTE: Final = 60.0

each_length = pytest.mark.parametrize(
    "seconds",
    [pytest.param(SECONDS, id="short"), pytest.param(MINUTE, id="minute", marks=pytest.mark.slow)],
)

# Others may rename and remove what is the victim's in the first; only in the second not.
OPEN: Final = 0o777
STICKY: Final = 0o1777
each_folder = pytest.mark.parametrize("mode", [OPEN, STICKY], ids=["open", "sticky"])

# A chunk is well below the time after which `run_as` ends a child: a victim that waits forever is
# one that never comes back from its chunk.
_CHUNK: Final = 5.0
_LONGEST: Final = 280
_PATIENCE: Final = 20

T = TypeVar("T")

Step = Callable[[], object]


class Board:
    """Numbers that both processes see: what was tried, what was won, who the victim is."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def get(self, place: int) -> int:
        (number,) = struct.unpack_from("q", self._memory, 8 * place)
        assert isinstance(number, int)
        return number

    def set(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, number)


_TRIES, _WINS, _VICTIM = range(3)


class Attack:
    """One that is under way."""

    def __init__(self) -> None:
        self._board = Board()

    @property
    def tries(self) -> int:
        """How many steps the attacker has taken."""
        return self._board.get(_TRIES)

    @property
    def wins(self) -> int:
        """How many of them gave it what it must not have."""
        return self._board.get(_WINS)

    @property
    def victim(self) -> int:
        """The process that publishes; 0 before there is one."""
        return self._board.get(_VICTIM)

    def step(self, step: Step) -> None:
        """Takes a step; what the kernel refuses is what one expects of an attack."""
        self._board.set(_TRIES, self.tries + 1)
        with suppress(OSError):
            if step() is True:
                self._board.set(_WINS, self.wins + 1)

    def i_am_the_victim(self) -> None:
        self._board.set(_VICTIM, os.getpid())


@contextmanager
def attacking(make_step: Callable[[Attack], Step]) -> Generator[Attack, None, None]:
    """Repeats a step as the attacker; one that returns True has won."""
    attack = Attack()

    def repeat(_ready: int) -> None:
        step = make_step(attack)
        while True:
            attack.step(step)

    with _forked(repeat):
        yield attack


@contextmanager
def holding(prepare: Callable[[], object]) -> Generator[None, None, None]:
    """Does something as the attacker, who keeps what it returns (open files) until the end."""

    def prepare_and_wait(ready: int) -> None:
        kept = prepare()
        os.write(ready, b"x")
        while kept is not prepare:
            signal.pause()

    with _forked(prepare_and_wait) as ready:
        assert os.read(ready, 1) == b"x", "the attacker could not prepare its attack"
        yield


@contextmanager
def _forked(program: Callable[[int], None]) -> Generator[int, None, None]:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # The child of a process with threads does nothing here but attack, until it is killed.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_the_attacker(partial(program, writing))
    os.close(writing)
    try:
        yield reading
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


def _be_the_attacker(program: Callable[[], None]) -> NoReturn:
    try:
        # If the test is killed, its attacker ends by itself.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LONGEST)
        os.setgroups([])
        os.setresgid(ATTACKER.gid, ATTACKER.gid, ATTACKER.gid)
        os.setresuid(ATTACKER.uid, ATTACKER.uid, ATTACKER.uid)
        kernel.become_dumpable()
        os.umask(0)
        program()
    finally:
        os._exit(1)


def run_without_waiting(user: User, function: Callable[[], T]) -> T:
    """Runs as `run_as` does; whoever waits for more than a lock of another user (seconds) is ended."""

    def function_with_alarm() -> T:
        signal.alarm(_PATIENCE)
        return function()

    return run_as(user, function_with_alarm)


def publish_for(
    attack: Attack,
    user: User,
    seconds: float,
    publish: Callable[[], str | None],
    umask: int = 0o022,
) -> Counter[str]:
    """Publishes again and again as `user`; counts how that ended.

    `publish` may return a word for what it found, or None. Only an `OSError` may be raised: an attack
    that makes a publish fail, or something stay for the next, is one that has not succeeded.
    """
    ends: Counter[str] = Counter()

    def chunk(length: float) -> Counter[str]:
        attack.i_am_the_victim()
        counted: Counter[str] = Counter()
        end = time.monotonic() + length
        while time.monotonic() < end:
            counted[_outcome(publish)] += 1
        return counted

    while seconds > 0:
        ends += run_as(user, partial(chunk, min(seconds, _CHUNK)), umask=umask)
        seconds -= _CHUNK
    print(f"{attack.tries} steps of the attacker, {attack.wins} wins; publishes: {dict(ends)}")
    assert attack.tries > 0
    return ends


def _outcome(publish: Callable[[], str | None]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", atomik.CleanupWarning)
            return publish() or "published"
    except OSError as error:
        return type(error).__name__
