"""Runs one operation again and again, each time with another call going wrong."""

import json
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from support import strace
from support.filesystems import Filesystem
from support.strace import Call, Injection

from inject.forks import Forks
from inject.operations import Operation
from inject.server import BEGIN, END
from inject.worlds import Build, State, look


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the process's exit code, what it reported, said, and left behind."""

    here: Path
    status: int
    report: dict[str, Any] | None
    stderr: str
    traced: list[Call]

    def state(self) -> State:
        return look(self.here)

    def leftovers(self) -> State:
        return look(self.here, slots=True)


class Bench:
    """One operation on one filesystem; nothing of it is left but folders in `fs`."""

    def __init__(self, operation: Operation, fs: Filesystem, forks: Forks) -> None:
        self.operation = operation.on(fs.flags)
        self.fs = fs
        self._forks = forks
        self._numbers = count()
        self.old = self.state(self.operation.old)
        self.new = self.state(self.operation.new)
        self.refused = self.operation is not operation
        made = self.state(operation.new)
        self.makes_a_folder = {name: stat.S_ISDIR(made[name][0]) for name in operation.destinations}
        self.slots = self.state(operation.old, slots=True)
        self.living = self.slots if operation.has_neighbour else {}
        self.halfway = operation.halfway and self.state(operation.halfway)
        assert (self.old == self.new) is (self.operation.ends_in is not None)
        forks.ask("prepare", operation.name, self.world(operation.old))
        forks.answer("prepared")

    def world(self, build: Build) -> Path:
        """Builds a new here."""
        here = self.fs.here / str(next(self._numbers))
        here.mkdir()
        build(here)
        return here

    def state(self, build: Build, *, slots: bool = False) -> State:
        here = self.world(build)
        try:
            return look(here, slots=slots)
        finally:
            shutil.rmtree(here)

    def calls(self) -> list[Call]:
        """Lists the system calls of the operation when nothing fails, with the mark at its end."""
        with self.run(["-y", "-s", "120"]) as outcome:
            assert outcome.status == 0, outcome
            assert outcome.report is not None
            error = outcome.report["error"]
            assert (error and error["type"]) == self.operation.ends_in, error
            assert outcome.state() == self.new
            assert outcome.leftovers() == self.living
            marks = [i for i, call in enumerate(outcome.traced) if _is_mark(call)]
            begin, end = marks
            return outcome.traced[begin + 1 : end + 1]

    @contextmanager
    def inject(self, injection: Injection) -> Generator[Outcome]:
        """Runs the operation with something going wrong."""
        with self.run(injection.options()) as outcome:
            yield outcome

    @contextmanager
    def run(self, options: list[str]) -> Generator[Outcome]:
        """Runs the operation in a world of its own, which is there until the block ends."""
        here = self.world(self.operation.old)
        try:
            yield self._run(here, options)
        finally:
            shutil.rmtree(here)

    def _run(self, here: Path, options: list[str]) -> Outcome:
        trace = self._forks.scratch / "trace"
        report = None
        self._forks.ask("run", self.operation.name, here)
        _, pid = self._forks.answer("ready")
        with strace.attached(int(pid), trace, options):
            self._forks.send(b"x")
            word, text = self._forks.answer("report", "ended")
            if word == "report":
                report = json.loads(text)
                _, text = self._forks.answer("ended")
        return Outcome(here, int(text), report, self._forks.said(), strace.calls(trace))


def _is_mark(call: Call) -> bool:
    return f'"{BEGIN}"' in call.text or f'"{END}"' in call.text
