"""The server's other end: asks it for forks, and ends it."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

_SECONDS: Final = 30


class Forks:
    """A server, started when first asked for anything; it serves every operation and filesystem."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._server: subprocess.Popen[bytes] | None = None
        self._worker: int | None = None
        self.scratch = Path()

    def close(self) -> None:
        """Ends the server, and a fork of it that hangs."""
        self._undo.close()

    def ask(self, request: str, name: str, here: Path) -> None:
        """Sends a request."""
        if self._server is None:
            self._start()
        self._stderr.seek(0)
        self._stderr.truncate()
        self.send(b"\t".join([request.encode(), name.encode(), os.fsencode(here)]) + b"\n")

    def send(self, data: bytes) -> None:
        assert self._server is not None
        assert self._server.stdin is not None
        self._server.stdin.write(data)

    def answer(self, *expected: str) -> tuple[str, str]:
        """Returns the answer's first word, which is one of those `expected`, and the rest."""
        try:
            word, _, text = self._line().partition(" ")
            assert word in expected, (word, text)
        except BaseException:
            # What it would say later is no answer to the next request.
            self.close()
            raise
        self._worker = int(text) if word == "ready" else None if word == "ended" else self._worker
        return word, text

    def said(self) -> str:
        """Returns what has come to standard error since the last request."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def _line(self) -> str:
        assert self._server is not None
        assert self._server.stdout is not None
        ready, _, _ = select.select([self._server.stdout], [], [], _SECONDS)
        assert ready, "it hangs"
        line = self._server.stdout.readline().decode()
        assert line, "the server has ended"
        return line.rstrip("\n")

    def _start(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="atomik-inject-")
        self.scratch = Path(self._undo.enter_context(folder))
        self._stderr = self._undo.enter_context((self.scratch / "stderr").open("w+b"))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONHASHSEED": "0",
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "inject.server"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
        )
        self._undo.callback(self._end)

    def _end(self) -> None:
        server, self._server = self._server, None
        worker, self._worker = self._worker, None
        assert server is not None
        assert server.stdin is not None
        assert server.stdout is not None
        if worker is not None:
            os.kill(worker, signal.SIGKILL)
        # It ends by itself at the end of its requests.
        server.stdin.close()
        try:
            server.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()
