"""Starts the worker, hands it plays, and tells what became of them, whatever becomes of the worker."""

import os
import pickle
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fuzz.plays import Play
from fuzz.run import Outcome

_LENGTH: Final = struct.Struct("=Q")


class Jail:
    """A worker of this user; a new one takes the place of one that has died."""

    def __init__(self, user: int, patience: int = 60) -> None:
        self._user = user
        self._patience = patience
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # The worker's own mount lies over it: here the folder stays empty.
        self._folder = Path(tempfile.mkdtemp(prefix="atomik-fuzz-"))
        self._stderr = tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end()
        self._stderr.close()
        self._folder.rmdir()

    def perform(self, play: Play) -> Outcome:
        """Has a play performed; a worker that dies, or prints a warning of any kind, is a fault."""
        worker = self._worker or self._start()
        assert worker.stdin is not None
        assert worker.stdout is not None
        request = pickle.dumps(play)
        worker.stdin.write(_LENGTH.pack(len(request)) + request)
        worker.stdin.flush()
        header = worker.stdout.read(_LENGTH.size)
        if len(header) < _LENGTH.size:
            status = self._end()
            return Outcome((f"the worker ended with {status}: {self._printed()}",), ())
        outcome = pickle.loads(worker.stdout.read(*_LENGTH.unpack(header)))
        assert isinstance(outcome, Outcome)
        if printed := self._printed():
            return Outcome((*outcome.faults, f"printed: {printed}"), outcome.answers)
        return outcome

    def _start(self) -> "subprocess.Popen[bytes]":
        search = os.pathsep.join(filter(None, sys.path))
        patience = {"ATOMIK_FUZZ_PATIENCE": str(self._patience), "RUST_BACKTRACE": "1"}
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", self._folder, str(self._user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": search, **patience},
        )
        return self._worker

    def _end(self) -> int | None:
        worker, self._worker = self._worker, None
        if worker is None:
            return None
        with worker:
            return worker.wait() if worker.poll() is not None else self._let_go(worker)

    def _let_go(self, worker: "subprocess.Popen[bytes]") -> int:
        # It ends at the end of its input, and its mounts with it.
        assert worker.stdin is not None
        worker.stdin.close()
        return worker.wait()

    def _printed(self) -> str:
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")
        self._stderr.truncate(0)
        self._stderr.seek(0)
        return text
