"""`async with`: what blocks is done off the event loop, and a cancellation waits for it."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from atomik import _async
from support.filesystems import leftovers
from support.guard_kinds import Kind, each_kind
from support.processes import run_program

_SECONDS: Final = 60


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, but not forever."""
    asyncio.run(asyncio.wait_for(coroutine, _SECONDS))


def with_old(here: Path, kind: Kind) -> Path:
    destination = here / "destination"
    kind.publish(destination, "old")
    return destination


class Gate:
    """Holds what runs off the event loop from when it is closed until it is opened."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self._reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Waits until a thread is held; the event loop goes on meanwhile."""
        assert await asyncio.to_thread(self._reached.wait, _SECONDS)

    def hold(self) -> None:
        self.threads.append(threading.get_ident())
        if not self._open.is_set():
            self._reached.set()
            assert self._open.wait(_SECONDS)


@pytest.fixture(params=["before", "after"])
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before or after what entering and ending a guard do off the event loop."""
    gate = Gate()
    begin = _async.begin

    def held(call: Callable[[], object]) -> "Future[object]":
        def slow() -> object:
            if request.param == "before":
                gate.hold()
            try:
                return call()
            finally:
                if request.param == "after":
                    gate.hold()

        return begin(slow)

    monkeypatch.setattr(_async, "begin", held)
    yield gate
    gate.open()


# Failures


@each_kind
def test_a_refusal_is_raised_on_entering(here: Path, kind: Kind) -> None:
    destination = with_old(here, kind)
    guard = kind.open(destination)

    async def main() -> None:
        async with guard:
            pytest.fail("the body ran")

    with pytest.raises(atomik.FileAlreadyExistsError) as caught:
        run(main())
    assert caught.value.filename == os.fspath(destination)
    assert kind.read(destination) == "old"


@each_kind
def test_an_exception_in_the_body_rolls_back(here: Path, kind: Kind) -> None:
    destination = with_old(here, kind)
    guard = kind.open(destination, overwrite=True)

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "half")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(main())
    assert not guard.committed
    assert kind.read(destination) == "old"
    assert leftovers(here) == []


@each_kind
def test_a_failed_commit_is_raised_and_leaves_nothing(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    guard = kind.open(destination)

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            kind.publish(destination, "other")

    with pytest.raises(atomik.FileAlreadyExistsError) as caught:
        run(main())
    assert caught.value.errno == errno.EEXIST
    assert not guard.committed
    assert kind.read(destination) == "other"
    assert leftovers(here) == []


@each_kind
def test_entering_twice_is_refused(here: Path, kind: Kind) -> None:
    guard = kind.open(here / "destination")

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
        async with guard:
            pytest.fail("the body ran")

    with pytest.raises(RuntimeError, match="entered once"):
        run(main())
    assert kind.read(here / "destination") == "new"


# Cancellation


@each_kind
def test_a_cancellation_in_the_body_rolls_back(here: Path, kind: Kind) -> None:
    destination = with_old(here, kind)
    guard = kind.open(destination, overwrite=True)

    async def body(begun: asyncio.Event) -> None:
        async with guard as staging:
            kind.write(staging, "half")
            begun.set()
            await asyncio.Event().wait()

    async def main() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(body(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())
    assert not guard.committed
    assert kind.read(destination) == "old"
    assert leftovers(here) == []


@each_kind
@pytest.mark.parametrize("times", [1, 3])
def test_a_cancelled_entering_waits_and_leaves_nothing(
    here: Path, kind: Kind, gate: Gate, times: int
) -> None:
    guard = kind.open(here / "destination")

    async def body() -> None:
        async with guard:
            pytest.fail("the body ran")

    async def main() -> None:
        gate.close()
        await cancelled_at(gate, asyncio.create_task(body()), times)

    run(main())
    assert not guard.committed
    assert list(here.iterdir()) == []
    with pytest.raises(RuntimeError):
        guard.commit()


@each_kind
def test_a_cancelled_entering_that_fails_is_a_cancellation(
    here: Path, kind: Kind, gate: Gate
) -> None:
    destination = with_old(here, kind)
    guard = kind.open(destination)

    async def body() -> None:
        async with guard:
            pytest.fail("the body ran")

    async def main() -> None:
        gate.close()
        await cancelled_at(gate, asyncio.create_task(body()))

    run(main())
    assert kind.read(destination) == "old"


@each_kind
@pytest.mark.parametrize("times", [1, 3])
def test_a_cancellation_during_the_commit_waits_for_its_end(
    here: Path, kind: Kind, gate: Gate, times: int
) -> None:
    destination = with_old(here, kind)
    guard = kind.open(destination, overwrite=True)

    async def body() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            gate.close()

    async def main() -> None:
        await cancelled_at(gate, asyncio.create_task(body()), times)

    run(main())
    assert guard.committed
    assert kind.read(destination) == "new"
    assert leftovers(here) == []


@each_kind
def test_a_cancellation_during_the_rollback_waits_for_its_end(
    here: Path, kind: Kind, gate: Gate
) -> None:
    destination = with_old(here, kind)
    guard = kind.open(destination, overwrite=True)

    async def body() -> None:
        async with guard as staging:
            kind.write(staging, "half")
            gate.close()
            raise LookupError

    async def main() -> None:
        await cancelled_at(gate, asyncio.create_task(body()))

    run(main())
    assert not guard.committed
    assert kind.read(destination) == "old"
    assert leftovers(here) == []


@each_kind
def test_a_time_limit_that_passes_during_the_commit_is_told_and_the_version_stands(
    here: Path, kind: Kind, gate: Gate
) -> None:
    destination = here / "destination"
    guard = kind.open(destination)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit, guard as staging:
                kind.write(staging, "new")
                gate.close()
                limit.reschedule(asyncio.get_running_loop().time())
                asyncio.get_running_loop().call_later(0.01, gate.open)

    run(main())
    assert guard.committed
    assert kind.read(destination) == "new"


async def cancelled_at(gate: Gate, task: "asyncio.Task[None]", times: int = 1) -> None:
    """Cancels a task while the gate holds it, and promises that it waits and then is cancelled."""
    await gate.reached()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.001)
    assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task


# Successes


@each_kind
def test_entering_and_committing_run_off_the_event_loop(here: Path, kind: Kind, gate: Gate) -> None:
    destination = here / "destination"
    guard = kind.open(destination)

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            assert len(gate.threads) == 1
            assert not destination.exists()
        assert len(gate.threads) == 2
        assert guard.committed

    run(main())
    assert threading.get_ident() not in gate.threads
    assert kind.read(destination) == "new"


@each_kind
def test_a_commit_in_the_body_is_the_end(here: Path, kind: Kind) -> None:
    guard = kind.open(here / "destination")

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            guard.commit()
            assert kind.read(here / "destination") == "new"

    run(main())
    assert guard.committed


@each_kind
def test_many_tasks_replace_one_destination(here: Path, kind: Kind) -> None:
    destination = here / "destination"

    async def write(version: str) -> None:
        async with kind.open(destination, overwrite=True, durability="none") as staging:
            kind.write(staging, version)
            await asyncio.sleep(0)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                tasks.create_task(write(f"version {number}"))

    run(main())
    assert kind.read(destination) in {f"version {number}" for number in range(40)}
    assert leftovers(here) == []


def test_the_loops_own_executor_is_not_waited_for(here: Path) -> None:
    """What runs there may itself wait for a guard, by `run_coroutine_threadsafe`."""
    destination = here / "destination"

    async def save() -> None:
        async with atomik.file(destination) as f:
            f.write("new")

    def job(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.run_coroutine_threadsafe(save(), loop).result(_SECONDS)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        await loop.run_in_executor(None, job, loop)

    run(main())
    assert destination.read_text() == "new"


def test_a_forked_child_has_threads_of_its_own(here: Path) -> None:
    done = run_program("-c", _FORK, here)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in here.iterdir()) == ["child", "parent"]


_FORK: Final = """
import asyncio, os, sys, warnings
import atomik

async def save(name):
    async with atomik.file(os.path.join(sys.argv[1], name)) as f:
        f.write("new")

# Since Python 3.12 forking beside threads is warned of, and that is what is tried here.
warnings.simplefilter("ignore", DeprecationWarning)
asyncio.run(save("parent"))
pid = os.fork()
if pid == 0:
    asyncio.run(save("child"))
else:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
