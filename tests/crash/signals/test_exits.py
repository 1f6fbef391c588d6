"""Proves that however a process ends, the destination is complete and its end is quiet.

`programs.py` has the endings that need threads, a crash or the interpreter's last moments; those of
one thread in a body are in tests/python/test_process.py.
"""

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from support.filesystems import Filesystem
from support.guard_kinds import KINDS, Kind
from support.processes import run_program

from signals.programs import PROGRAMS

_PROGRAMS: Final = Path(__file__).with_name("programs.py")

# What Rust, Python and the C library say of what must not happen.
_ALARMS: Final = re.compile(
    r"panicked|Traceback|Fatal|Exception ignored|foreign exception|terminate called"
)


@dataclass(frozen=True)
class Expected:
    """How a program ends: its exit status, the version that stands, whether an orphan may stay."""

    version: str
    status: int = 0
    orphan: bool = False
    says: str = ""


# A daemon thread is stopped wherever it is, and none of its destructors run.
ENDINGS: Final = {
    "exit_at_once": Expected("old", status=3, orphan=True),
    "exit_in_order": Expected("old", status=3),
    "abort": Expected("old", status=-signal.SIGABRT, orphan=True),
    "raise_in_a_thread": Expected("old", says="LookupError\n"),
    "exit_in_a_thread": Expected("old"),
    "finish_in_a_thread": Expected("new"),
    "end_with_a_daemon_in_a_body": Expected("old", orphan=True),
    "end_with_a_daemon_in_a_generator": Expected("old", orphan=True),
    "end_with_a_daemon_in_commits": Expected("new", orphan=True),
    "commit_at_exit": Expected("new"),
}


def end(program: str, kind: Kind, fs: Filesystem, expected: Expected) -> None:
    """Runs a program over an old version and looks at its end and at what it left."""
    destination = fs.here / "destination"
    kind.publish(destination, "old")
    ended = run_program(_PROGRAMS, program, kind.name, destination)
    assert (ended.returncode, ended.stdout) == (expected.status, expected.says), ended.stderr
    if program == "abort":
        # What faulthandler says of any SIGABRT; a panic would stand before it.
        assert ended.stderr.startswith("Fatal Python error: Aborted\n")
        assert _ALARMS.findall(ended.stderr) == ["Fatal"]
    else:
        assert ended.stderr == ""
    assert kind.read(destination) == expected.version
    assert expected.orphan or fs.leftovers() == []
    kind.publish(destination, "next", overwrite=True)
    assert kind.read(destination) == "next"
    assert fs.leftovers() == []


def test_every_program_has_an_ending() -> None:
    assert {*ENDINGS, "commit_while_finalizing"} == PROGRAMS.keys()


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("program", ENDINGS)
def test_the_end_of_a_process_is_quiet_and_the_destination_complete(
    fs: Filesystem, kind: Kind, program: str
) -> None:
    end(program, kind, fs, ENDINGS[program])


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_commit_that_returns_while_the_interpreter_ends_is_quiet_and_complete(
    fs: Filesystem,
) -> None:
    # A replacing folder is what waits for a lock, by which the moment can be chosen.
    end("commit_while_finalizing", KINDS["folder"], fs, Expected("new", orphan=True))


@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
@pytest.mark.parametrize("program", ["exit_at_once", "abort", "end_with_a_daemon_in_a_body"])
def test_staging_that_has_a_name_is_removed_by_the_next_writer(
    fs: Filesystem, program: str
) -> None:
    end(program, KINDS["file"], fs, ENDINGS[program])
