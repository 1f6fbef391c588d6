"""Performs one play and judges it: `verbs.py` has what is done, `judge.py` what must then be true."""

import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import atomik

from fuzz import stage
from fuzz.arguments import made
from fuzz.judge import judge
from fuzz.plays import MAKING, Play, Step
from fuzz.run import CALL, Outcome, Run
from fuzz.sabotage import SABOTAGE
from fuzz.verbs import ON_THE_BODY, VERBS, may_raise


def perform(play: Play, jail: Path) -> Outcome:
    """Performs a play in a new folder of `jail`, which is empty before and afterwards."""
    run = Run(play)
    faults = run.faults

    def unraisable(hook: Any) -> None:
        faults.append(f"a destructor raised {hook.exc_value!r}")

    def thread_ended(hook: Any) -> None:
        faults.append(f"a thread ended with {hook.exc_value!r}")

    sys.unraisablehook, threading.excepthook = unraisable, thread_ended
    top = jail / "stage"
    stage.lay_out(top, play.there, play.around, play.litter)
    descriptors, threads = os.listdir("/proc/self/fd"), threading.active_count()
    tasks = _tasks()
    try:
        before = stage.snapshot(jail)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("error" if play.warnings_are_errors else "always")
            # A guard that is dropped says so: no destructor can raise that.
            warnings.filterwarnings("ignore", ".*use 'with'", ResourceWarning)
            with ExitStack() as undo:
                _call(run, undo)
                _steps(run)
            run.guard = run.body = None
            gc.collect()
        # What is removed in the background is gone once its thread is.
        while _tasks() - tasks:
            time.sleep(0.001)
        after = stage.snapshot(jail)
    finally:
        os.chdir("/")
        stage.raze(top)
    if os.listdir("/proc/self/fd") != descriptors:
        faults.append("descriptors are left open")
    if threading.active_count() != threads:
        faults.append("threads are left")
    if any(isinstance(warning.message, atomik.CleanupWarning) for warning in warned):
        run.answers.append("CleanupWarning")
        run.left = True
    faults += judge(run, before, after)
    return Outcome(tuple(faults), tuple(run.answers) or ("well",))


def _tasks() -> set[int]:
    """Lists the process's threads but those of Python, which have no business to be left."""
    running = {thread.native_id for thread in threading.enumerate()}
    return {int(task) for task in os.listdir("/proc/self/task")} - running


def _call(run: Run, undo: ExitStack) -> None:
    play = run.play
    try:
        arguments = [made(argument, undo) for argument in play.arguments]
        options = {name: made(value, undo) for name, value in play.options.items()}
    except OSError:
        # The folder that a descriptor should lead to is one of those that nobody may open.
        return
    call: Callable[..., Any] = getattr(atomik, play.call)
    if play.sabotage is not None:
        call = SABOTAGE[play.sabotage].instead
    try:
        answer = call(*arguments, **options)
    except BaseException as error:
        run.raised("call", error, CALL)
        # The one warning that a call gives once its version is there; the caller may have made it an error.
        run.published = isinstance(error, atomik.CleanupWarning) or getattr(
            error, "committed", False
        )
    else:
        run.published = answer is None
        run.guard = answer if play.call in MAKING else None
        del answer
    finally:
        # What the caller keeps hold of otherwise is the traceback's.
        del arguments, options


def _steps(run: Run) -> None:
    if run.guard is None:
        return
    first, *others = run.play.threads
    for step in first:
        _step(run, step)
    if not others:
        return
    together = threading.Barrier(len(others))

    def work(steps: tuple[Step, ...]) -> None:
        together.wait()
        for step in steps:
            _step(run, step)

    threads = [threading.Thread(target=work, args=(steps,)) for steps in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _step(run: Run, step: Step) -> None:
    guard, body = run.guard, run.body
    if guard is None or (step.verb in ON_THE_BODY and body is None):
        return
    try:
        VERBS[step.verb](run, guard, body, step.of)
    except BaseException as error:
        run.raised(step.verb, error, may_raise(step.verb))
    finally:
        # Another thread may have dropped it meanwhile. Not `|=`, which could undo what that thread has just noted.
        if getattr(guard, "committed", False):
            run.published = True
