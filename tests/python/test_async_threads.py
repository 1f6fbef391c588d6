"""`async with` does what blocks in threads of its own: the loop goes on, and a cancellation waits for them."""

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import atomik
import pytest
import trio
from atomik import _async
from support.event_loops import LOOPS, SECONDS, Run, each_loop, under_asyncio
from support.filesystems import leftovers
from support.guard_kinds import AnyGuard, Kind, each_kind


class Gate:
    """Holds the calls of guards in their thread from when it is closed until it is opened."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.threads: list[str] = []
        self.reached = threading.Event()
        self.is_open = threading.Event()
        self.is_open.set()

    def close(self) -> None:
        self.is_open.clear()

    def open(self) -> None:
        self.is_open.set()

    def pass_by(self, moment: str) -> None:
        self.threads.append(threading.current_thread().name)
        if moment == self.moment and not self.is_open.is_set():
            self.reached.set()
            assert self.is_open.wait(SECONDS)

    async def wait(self) -> None:
        """Waits until a call is held; the event loop goes on meanwhile."""
        assert await anyio.to_thread.run_sync(self.reached.wait, SECONDS)


@pytest.fixture(params=["before", "after"])
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before or after what entering and ending a guard do in a thread."""
    gate = Gate(request.param)
    begin = _async.begin

    def held(call: Callable[[], object]) -> object:
        def slow() -> object:
            gate.pass_by("before")
            try:
                return call()
            finally:
                gate.pass_by("after")

        return begin(slow)

    monkeypatch.setattr(_async, "begin", held)
    yield gate
    gate.open()


async def cancelled_at(gate: Gate, body: Callable[[], Awaitable[None]]) -> None:
    """Cancels a task while the gate holds it; it must wait, and be cancelled then."""
    gate_was_open: list[bool] = []

    async def task() -> None:
        try:
            await body()
        finally:
            gate_was_open.append(gate.is_open.is_set())
        await anyio.lowlevel.checkpoint()
        pytest.fail("it was not cancelled")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        await gate.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            gate.open()
    assert gate_was_open == [True]


async def cancelled_again_and_again_at(gate: Gate, body: Callable[[], Awaitable[None]]) -> None:
    """Does the same as asyncio does, where a task can be cancelled more than once."""
    task = asyncio.ensure_future(body())
    await gate.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.001)
    assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task


# Threads


@each_loop
@each_kind
def test_it_is_entered_and_committed_in_threads_of_its_own(
    here: Path, kind: Kind, gate: Gate, run: Run
) -> None:
    destination = here / "destination"
    guard = kind.open(destination)

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            assert len(gate.threads) == 2
            assert not destination.exists()
        assert guard.committed

    run(main)
    assert len(gate.threads) == 4
    assert all(name.startswith("atomik") for name in gate.threads)
    assert kind.read(destination) == "new"


@each_loop
def test_the_members_of_a_group_are_written_without_blocking_the_loop(
    here: Path, gate: Gate, run: Run
) -> None:
    async def main() -> None:
        async with atomik.group() as g:
            async with g.file(here / "file") as f:
                f.write("1")
            async with g.folder(here / "folder") as folder:
                (folder / "inner").write_text("2")
            await anyio.to_thread.run_sync(g.write_bytes, here / "bytes", b"3")
            assert leftovers(here) == os.listdir(here)
        assert g.committed

    run(main)
    assert len(gate.threads) == 12
    assert all(name.startswith("atomik") for name in gate.threads)
    assert sorted(path.name for path in here.iterdir()) == ["bytes", "file", "folder"]


# Cancellation


@each_loop
@each_kind
def test_a_cancellation_in_the_body_rolls_back(here: Path, kind: Kind, run: Run) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination, overwrite=True)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with guard as staging:
                kind.write(staging, "half")
                scope.cancel()
                await anyio.sleep_forever()
            pytest.fail("it was not cancelled")

    run(main)
    assert not guard.committed
    assert kind.read(destination) == "old"
    assert os.listdir(here) == ["destination"]


@each_kind
def test_a_task_that_is_cancelled_in_the_body_is_cancelled(here: Path, kind: Kind) -> None:
    async def body(begun: asyncio.Event) -> None:
        async with kind.open(here / "destination") as staging:
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

    under_asyncio(main)
    assert os.listdir(here) == []


@each_loop
@each_kind
@pytest.mark.parametrize("exists", [False, True], ids=["that succeeds", "that fails"])
def test_a_cancelled_entering_waits_and_leaves_nothing(
    here: Path, kind: Kind, gate: Gate, run: Run, exists: bool
) -> None:
    destination = here / "destination"
    if exists:
        kind.publish(destination, "old")
    guard = kind.open(destination)
    gate.close()

    async def body() -> None:
        async with guard:
            pytest.fail("the body ran")

    run(lambda: cancelled_at(gate, body))
    assert not guard.committed
    assert os.listdir(here) == ["destination"] * exists
    assert not exists or kind.read(destination) == "old"
    with pytest.raises(RuntimeError):
        guard.commit()


@each_loop
@each_kind
@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_a_cancelled_commit_or_rollback_waits_for_its_end_and_counts(
    here: Path, kind: Kind, gate: Gate, run: Run, commits: bool
) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination, overwrite=True)

    async def body() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            gate.close()
            if not commits:
                raise LookupError

    run(lambda: cancelled_at(gate, body))
    assert guard.committed == commits
    assert kind.read(destination) == ("new" if commits else "old")
    assert os.listdir(here) == ["destination"]


@each_kind
@pytest.mark.parametrize("moment", ["entering", "commit"])
def test_being_cancelled_again_changes_nothing(
    here: Path, kind: Kind, gate: Gate, moment: str
) -> None:
    guard = kind.open(here / "destination")

    async def body() -> None:
        if moment == "entering":
            gate.close()
        async with guard as staging:
            assert moment == "commit"
            kind.write(staging, "new")
            gate.close()

    under_asyncio(lambda: cancelled_again_and_again_at(gate, body))
    assert guard.committed == (moment == "commit")
    assert os.listdir(here) == ["destination"] * guard.committed


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

    under_asyncio(main)
    assert guard.committed
    assert kind.read(destination) == "new"


@each_loop
def test_a_start_that_is_cancelled_before_it_has_begun_never_begins(
    here: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    guard = atomik.file(here / "destination")
    with ThreadPoolExecutor(1) as threads:
        monkeypatch.setattr(_async, "threads", lambda: threads)
        free = threading.Event()
        threads.submit(free.wait, SECONDS)

        async def main() -> None:
            with anyio.move_on_after(0.01):
                async with guard:
                    pytest.fail("the body ran")
            assert not free.is_set()

        try:
            run(main)
        finally:
            free.set()
    # It is as new.
    with guard as f:
        f.write("new")
    assert (here / "destination").read_text() == "new"


@pytest.mark.filterwarnings("error")
@each_kind
@pytest.mark.parametrize("run", [LOOPS["trio"], LOOPS["anyio on trio"]], ids=["trio", "anyio"])
def test_trio_does_not_begin_what_is_cancelled_already_and_warns_of_nothing(
    here: Path, kind: Kind, run: Run
) -> None:
    async def enter(guard: AnyGuard) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with guard:
                pytest.fail("the body ran")

    guard = kind.open(here / "destination")
    run(lambda: enter(guard))
    with guard as staging:
        kind.write(staging, "new")
    assert guard.committed
    run(lambda: enter(kind.open(here / "other")))
    gc.collect()
