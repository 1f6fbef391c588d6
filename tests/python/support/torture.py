"""Writers and readers of one folder that are killed, stopped and started again: what the torture run is made of.

A version is eight files that hold the same *history*: who has replaced, and all the updates since then.

    replaced by 17
    updated by 18
    ...

The first line makes it an *era*: a replacement begins a new one, and loses what it replaces, as it
says. Within an era each update adds its line, so that an update is lost if its line is missing.
"""

import os
import random
import select
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import atomik

from support import kernel

History: TypeAlias = tuple[str, ...]
Say: TypeAlias = Callable[..., None]
Role: TypeAlias = Callable[["Torture", int, random.Random, Say], None]

FILES: Final = (
    "one",
    "two",
    "three",
    "inner/one",
    "inner/two",
    "inner/three",
    "inner/four",
    "last",
)
# A write to a pipe of up to PIPE_BUF bytes is one piece, or nothing if the writer is killed: see pipe(7).
_LONGEST: Final = 1000


class Mixed(Exception):  # noqa: N818 - it says what was found
    """The files of one folder hold different versions."""


def write(folder: Path, history: History) -> None:
    """Writes a version into a folder, which may hold another."""
    (folder / "inner").mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text("\n".join(history))


def read(folder: Path) -> History:
    """Reads a version file by file; `FileNotFoundError` if one has vanished."""
    texts = {(folder / name).read_text() for name in FILES}
    if len(texts) != 1:
        raise Mixed(f"{len(texts)} versions: {texts}")
    return tuple(texts.pop().split("\n"))


def follows(later: History, earlier: History) -> bool:
    """Can `later` be a version after `earlier`? Within an era nothing is taken back."""
    return later[0] != earlier[0] or later[: len(earlier)] == earlier


@dataclass
class Sight:
    """What one process has seen of the destination, in this order."""

    last: History = ("",)
    eras: set[str] = field(default_factory=set)

    def check(self, history: History) -> None:
        """Fails if a version has come back that was displaced before."""
        if history[0] != self.last[0]:
            assert history[0] not in self.eras, f"{history[0]} is back"
            self.eras.add(history[0])
        assert follows(history, self.last), f"{self.last} became {history}"
        self.last = history


def _durability(rng: random.Random) -> str:
    return rng.choices(("none", "ordered", "full"), (18, 1, 1))[0]


def _options(rng: random.Random) -> dict[str, Any]:
    cleanup = rng.choice(("inline", "inline", "background"))
    return {"durability": _durability(rng), "cleanup": cleanup}


def writer(torture: "Torture", number: int, rng: random.Random, say: Say) -> None:
    """Updates, and sometimes replaces, again and again."""
    sight = Sight()
    for step in count():
        me = f"{number}.{step}"
        update = rng.random() < 0.97
        try:
            if update:
                with atomik.folder(torture.destination, update=True, **_options(rng)) as staging:
                    history = read(staging)
                    sight.check(history)
                    new = (*history, f"updated by {me}")
                    write(staging, new)
                say("updated", new[0], me)
            else:
                with atomik.folder(torture.destination, overwrite=True, **_options(rng)) as staging:
                    new = (f"replaced by {me}",)
                    write(staging, new)
                say("replaced")
        except atomik.ConflictError:
            say("conflict")
            assert update
        else:
            # What comes later comes after it.
            sight.check(new)


def snapshot_reader(torture: "Torture", _number: int, rng: random.Random, say: Say) -> None:
    """Opens a version and reads it three times; all of it must be there, and stay what it is."""
    sight = Sight()
    while True:
        seen: set[History] = set()
        with atomik.snapshot(torture.destination) as path:
            try:
                for _ in range(3):
                    seen.add(read(path))
                    time.sleep(rng.choice((0, 0, 0.001, 0.01)))
            except FileNotFoundError as error:
                say("vanished", error)
            except Mixed as error:
                say("mixed", error)
            else:
                if len(seen) > 1:
                    say("mixed", f"it has changed: {seen}")
                sight.check(seen.pop())
                say("read")


def plain_reader(torture: "Torture", _number: int, _rng: random.Random, say: Say) -> None:
    """Reads by path, as programs without snapshots do: what goes wrong there is the measure of them."""
    while True:
        # The name itself leads to a complete version at every instant.
        os.close(os.open(torture.destination, os.O_RDONLY | os.O_DIRECTORY))
        try:
            read(torture.destination)
        except Mixed:
            say("plainly mixed")
        except FileNotFoundError:
            say("plainly vanished")
        else:
            say("plainly read")


ROLES: Final[tuple[Role, ...]] = (*[writer] * 4, *[snapshot_reader] * 4, *[plain_reader] * 2)


@dataclass
class Torture:
    """One run: its processes, and what they have said."""

    destination: Path
    rng: random.Random
    said: Counter[str] = field(default_factory=Counter)
    updated: list[tuple[str, str]] = field(default_factory=list)
    """Each update that was reported successful: its era, and who it is."""
    errors: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    _running: dict[int, Role] = field(default_factory=dict)
    _stopped: set[int] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=count)
    _rest: bytes = b""

    def run(self, seconds: float) -> None:
        """Lets all roles run for some time, then kills them all at once."""
        write_first(self.destination)
        self._reports, self._say = os.pipe()
        try:
            for role in ROLES:
                self._start(role)
            self._strike(seconds)
        finally:
            # No one is left to remove what another one leaves.
            for pid in self._running:
                os.kill(pid, signal.SIGKILL)
            for pid in list(self._running):
                self._reap(pid)
            os.close(self._say)
            while self._listen(None):
                pass
            os.close(self._reports)

    def _strike(self, seconds: float) -> None:
        """Kills, stops and continues processes at random moments, and starts others in their place."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self._listen(min(self.rng.expovariate(1 / 0.02), until - now))
            pid = self.rng.choice(list(self._running))
            match self.rng.choice(("kill", "kill", "stop")):
                case "stop" if pid not in self._stopped and len(self._stopped) < 3:
                    # Between any two system calls, and for as long as others need to pass it.
                    os.kill(pid, signal.SIGSTOP)
                    self._stopped.add(pid)
                case "stop":
                    self._go_on()
                case _:
                    os.kill(pid, signal.SIGKILL)
                    self._start(self._reap(pid))
            if self.rng.random() < 0.3:
                self._go_on()

    def _reap(self, pid: int) -> Role:
        _, status = os.waitpid(pid, 0)
        self._stopped.discard(pid)
        role = self._running.pop(pid)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.kills[role.__name__] += 1
        elif status != 0:  # else it has failed before it was to be killed, and said why
            self.errors.append(f"{role.__name__} ended with {os.waitstatus_to_exitcode(status)}")
        return role

    def _go_on(self) -> None:
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def _listen(self, seconds: float | None) -> bool:
        """Takes in what is said for so long, or until it ends; false once all have ended."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._reports], [], [], left)[0]:
                return True
            piece = os.read(self._reports, 1 << 16)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                self._hear(line.decode())
            if not piece:
                return False
            if left == 0:
                return True

    def _hear(self, line: str) -> None:
        word, *details = line.split("\t")
        self.said[word] += 1
        match word, details:
            case "updated", [era, me]:
                self.updated.append((era, me))
            case (("error" | "mixed" | "vanished"), _):
                self.errors.append(line)
            case _:
                assert not details

    def _start(self, role: Role) -> None:
        number, seed, parent = next(self._numbers), self.rng.random(), os.getpid()
        with warnings.catch_warnings():
            # The child of a process with threads does its part and ends without pytest.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self._child(role, number, random.Random(seed), parent)
        self._running[pid] = role

    def _child(self, role: Role, number: int, rng: random.Random, parent: int) -> NoReturn:
        def say(*words: object) -> None:
            line = "\t".join(str(word).replace("\n", " | ") for word in words)
            os.write(self._say, line[:_LONGEST].encode() + b"\n")

        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            # Nobody outlives a run whose own process is killed, not even who is stopped: see prctl(2).
            kernel.die_with_parent(parent)
            os.close(self._reports)
            role(self, number, rng, say)
        except BaseException as error:
            say("error", role.__name__, type(error).__name__, error)
        finally:
            os._exit(0)


def write_first(destination: Path) -> None:
    with atomik.folder(destination, durability="none") as staging:
        write(staging, ("the first",))
