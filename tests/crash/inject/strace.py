"""strace(1), attached to one process: what it asked of the kernel, and a call that fails on purpose."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# A name beside a destination, or of a slot in a room.
_OURS: Final = re.compile(r'"(\.atomik-[^"]*|[0-9a-f]{16})"')


@dataclass(frozen=True)
class Call:
    """One system call: its name, which one of that name it is (from 1), and strace's line."""

    name: str
    occurrence: int
    text: str

    def removes_a_slot(self) -> bool:
        """Is this the removal of one of the library's own names?"""
        return self.name in ("unlinkat", "unlink", "rmdir") and _OURS.search(self.text) is not None

    def __str__(self) -> str:
        return f"{self.name} #{self.occurrence} {self.text}"


@dataclass(frozen=True)
class Injection:
    """What happens instead of a call: an error (by its name), or the end of the process."""

    call: Call
    error: str | None = None

    def options(self) -> list[str]:
        # A signal at the entry of a call: when it is SIGKILL, the kernel does not carry out the call
        # (ptrace(2): a pending fatal signal aborts it).
        what = "signal=KILL" if self.error is None else f"error={self.error}"
        name = self.call.name
        return ["-e", f"trace={name}", "-e", f"inject={name}:{what}:when={self.call.occurrence}"]

    def __str__(self) -> str:
        return f"{self.error or 'SIGKILL'} at {self.call}"


@cache
def why_not() -> str | None:
    """Says why nothing can be traced here, if so."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()}"


@contextmanager
def attached(pid: int, output: Path, options: list[str]) -> Iterator[None]:
    """Traces a process from here on; leaving it waits for the end of that process."""
    command = ["strace", "-o", str(output), *options, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            assert "attached" in said, said
            yield
            # It says no more, and ends with its tracee.
            tracer.stderr.read()
        finally:
            tracer.kill()


def calls(output: Path) -> list[Call]:
    """Reads what was traced."""
    counts: Counter[str] = Counter()
    found: list[Call] = []
    for line in output.read_text("utf-8", "surrogateescape").splitlines():
        if named := re.match(r"(\w+)\(", line):
            counts[named[1]] += 1
            found.append(Call(named[1], counts[named[1]], line))
    return found
