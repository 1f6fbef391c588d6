"""Records a workload on a filesystem, then judges the crash states of that recording."""

import importlib
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support import kernel

from powercut import device, states
from powercut.configurations import CONFIGURATIONS, UNSOUND, Configuration
from powercut.interface import Workload
from powercut.replay import Replayer, Unmountable

_CAP_SYS_ADMIN: Final = 21

CATALOGUES: Final = ("workloads", "peers", "recipes")
_SHOWN: Final = 20


@dataclass(frozen=True)
class Task:
    """One workload on one filesystem. All that is in it is text, so that any process can do it."""

    configuration: str
    catalogue: str
    workload: str
    bystander: bool
    states: int  # 0 for all
    seed: int
    heed_flushes: bool = True


@dataclass
class Outcome:
    task: Task
    possible: int = 0
    epochs: int = 0
    seconds: float = 0.0
    """What the replay took."""
    tried: int = 0
    bad: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """How many states have each kind of problem: its text up to the first colon."""
    examples: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """What no filesystem should do, and no workload is blamed for: states that could not be mounted, and so on."""

    @property
    def verdict(self) -> str:
        if self.errors:
            return "ENGINE ERROR"
        return "BAD" if self.bad else "good"


def catalogue(name: str) -> dict[str, Workload]:
    """Returns the workloads of one of the modules `CATALOGUES`, by their names."""
    assert name in CATALOGUES, name
    listed: Iterable[Workload] = getattr(importlib.import_module(f"powercut.{name}"), name.upper())
    found = {workload.name: workload for workload in listed}
    assert found, f"no {name}"
    return found


def missing(configuration: Configuration) -> str | None:
    """Says what of all that a run needs cannot be had here."""
    status = Path("/proc/self/status").read_text()
    (capabilities,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    if not int(capabilities, 16) >> _CAP_SYS_ADMIN & 1:
        return "mounting filesystems needs root"
    for node in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(node, os.R_OK | os.W_OK):
            return f"{node} is missing"
    if shutil.which(configuration.mkfs[0]) is None:
        return f"{configuration.mkfs[0]} is not installed"
    known = Path("/proc/filesystems").read_text().split()
    modules = Path("/lib/modules", os.uname().release, "kernel/fs")
    for kind in ("fuse", configuration.kind):
        if kind not in known and not (modules / kind).exists():
            return f"the kernel has no {kind}"
    return None


def judge(place: device.Place, task: Task) -> Outcome:
    """Does one task, in a process that has entered its place."""
    configuration = (CONFIGURATIONS | UNSOUND)[task.configuration]
    workload = catalogue(task.catalogue)[task.workload]
    recording = device.record(place, configuration, workload, busy=task.bystander)
    found = states.epochs(recording.events, device.BEGIN, heed_flushes=task.heed_flushes)
    possible = list(states.possible(found, task.seed))
    outcome = Outcome(task, len(possible), len(found))
    started = time.monotonic()
    with Replayer(place, configuration, recording) as replayer:
        for state in states.sampled(possible, task.states, task.seed):
            outcome.tried += 1
            try:
                problems = replayer.judge(state, workload.check)
            except Unmountable as error:
                outcome.errors.append(f"{state}: {error}")
                continue
            except OSError as error:
                problems = [f"unreadable: {error}"]
            if problems:
                _note(outcome, state, problems)
    outcome.seconds = time.monotonic() - started
    return outcome


def judge_all(tasks: Iterable[Task], jobs: int) -> Iterator[Outcome]:
    """Does tasks in processes of their own, `jobs` at a time, and yields what they find as it comes."""
    with ExitStack() as undo:
        # Each process mounts a tmpfs of its own there: a killed one leaves nothing, a killed caller an empty folder.
        root = undo.enter_context(tempfile.TemporaryDirectory(prefix="atomik-powercut-"))
        pool = ProcessPoolExecutor(
            jobs,
            multiprocessing.get_context("spawn"),
            initializer=_begin_process,
            initargs=(os.getpid(), Path(root)),
        )
        undo.enter_context(pool)
        undo.callback(pool.shutdown, cancel_futures=True)
        for future in as_completed([pool.submit(_do, task) for task in tasks]):
            yield future.result()


_entered: Final[list[device.Place]] = []  # this process's


def _begin_process(parent: int, root: Path) -> None:
    kernel.die_with_parent(parent)
    _entered.append(device.Place.enter(root))


def _do(task: Task) -> Outcome:
    (place,) = _entered
    try:
        return judge(place, task)
    except Exception:
        # One workload that fails must not end a run of hours.
        return Outcome(task, errors=[traceback.format_exc()])


def _note(outcome: Outcome, state: states.State, problems: list[str]) -> None:
    outcome.bad += 1
    outcome.kinds.update({problem.partition(":")[0] for problem in problems})
    if len(outcome.examples) < _SHOWN:
        outcome.examples.append(f"{state}: {'; '.join(problems)}")
