"""Processes of a test's own: a function that runs as another user or with another umask, and Python programs."""

import os
import pickle
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from support import kernel

T = TypeVar("T")

_SECONDS: Final = 60


@dataclass(frozen=True)
class User:
    """Whom to run as."""

    uid: int
    gid: int
    groups: Sequence[int] = ()

    def label(self) -> str:
        return "root" if self.uid == 0 else "ordinary user"


ROOT: Final = User(0, 0)
NOBODY: Final = User(65534, 65534, (4242,))


def run_as(user: User, function: Callable[[], T], *, umask: int = 0o022) -> T:
    """Returns or raises what `function` returns or raises in a forked process of this user.

    Results and exceptions travel by pickle. The child ends without running anything of pytest's.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # The child of a process with threads does nothing here but call `function` and end.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(user, function, umask, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not answer:
        raise AssertionError(f"the child ended with status {os.waitstatus_to_exitcode(status)}")
    result: T
    succeeded, result, raised = pickle.loads(answer)
    if not succeeded:
        assert isinstance(raised, BaseException)
        raise raised
    return result


def _child(user: User, function: Callable[[], object], umask: int, writing: int) -> NoReturn:
    try:
        # A test that has timed out in the parent leaves no child behind.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS)
        os.setgroups(list(user.groups))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        kernel.become_dumpable()
        os.umask(umask)
        try:
            answer = pickle.dumps((True, function(), None))
        except BaseException as error:
            answer = _pickled(error)
        with open(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _pickled(error: BaseException) -> bytes:
    report = "".join(traceback.format_exception(error))
    try:
        answer = pickle.dumps((False, None, error))
        pickle.loads(answer)
    except Exception:
        return pickle.dumps((False, None, AssertionError(report)))
    return answer


def start_program(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Starts a Python program that can import what this process can; the test must end it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_program(
    *arguments: str | Path, seconds: int = _SECONDS
) -> "subprocess.CompletedProcess[str]":
    """Runs such a program to its end, for as many seconds at most."""
    with start_program(*arguments) as program:
        try:
            out, err = program.communicate(timeout=seconds)
        except BaseException:
            # Leaving the `with` statement waits for its end.
            program.kill()
            raise
        return subprocess.CompletedProcess(program.args, program.returncode, out, err)
