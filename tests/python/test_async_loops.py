"""`async with` under every event loop: asyncio, trio, and anyio on both."""

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import anyio.to_thread
import atomik
import pytest
import trio
import trio.testing
from atomik import _async
from support.filesystems import leftovers
from support.guard_kinds import Kind, each_kind

_SECONDS: Final = 60

Main: TypeAlias = Callable[[], Awaitable[None]]
Run: TypeAlias = Callable[[Main], None]


def _under_asyncio(main: Main) -> None:
    async def limited() -> None:
        await asyncio.wait_for(main(), _SECONDS)

    asyncio.run(limited())


def _under_trio(main: Main) -> None:
    async def limited() -> None:
        with trio.fail_after(_SECONDS):
            await main()

    trio.run(limited)


def _under_anyio(backend: str) -> Run:
    async def limited(main: Main) -> None:
        with anyio.fail_after(_SECONDS):
            await main()

    return lambda main: anyio.run(limited, main, backend=backend)


LOOPS: Final[dict[str, Run]] = {
    "asyncio": _under_asyncio,
    "trio": _under_trio,
    "anyio on asyncio": _under_anyio("asyncio"),
    "anyio on trio": _under_anyio("trio"),
}

each_loop = pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)


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
            assert self.is_open.wait(_SECONDS)

    async def wait(self) -> None:
        """Waits until a call is held; the event loop goes on meanwhile."""
        assert await anyio.to_thread.run_sync(self.reached.wait, _SECONDS)


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

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        await gate.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            gate.open()
    assert gate_was_open == [True]


# Failures


@each_loop
def test_a_refusal_is_raised_on_entering(here: Path, run: Run) -> None:
    (here / "destination").touch()

    async def main() -> None:
        with pytest.raises(atomik.FileAlreadyExistsError):
            async with atomik.file(here / "destination"):
                pytest.fail("the body ran")

    run(main)


@each_loop
@each_kind
def test_an_exception_in_the_body_rolls_back(here: Path, kind: Kind, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(LookupError, match="mine"):
            async with kind.open(here / "destination") as staging:
                kind.write(staging, "half")
                raise LookupError("mine")

    run(main)
    assert list(here.iterdir()) == []


@each_loop
@each_kind
def test_a_cancellation_in_the_body_rolls_back(here: Path, kind: Kind, run: Run) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with kind.open(here / "destination") as staging:
                kind.write(staging, "half")
                scope.cancel()
                await anyio.sleep_forever()
            pytest.fail("it was not cancelled")

    run(main)
    assert list(here.iterdir()) == []


@each_loop
@each_kind
def test_a_cancelled_entering_waits_and_leaves_nothing(
    here: Path, kind: Kind, gate: Gate, run: Run
) -> None:
    guard = kind.open(here / "destination")

    async def body() -> None:
        async with guard:
            pytest.fail("the body ran")

    async def main() -> None:
        gate.close()
        await cancelled_at(gate, body)

    run(main)
    assert not guard.committed
    assert list(here.iterdir()) == []


@each_loop
@each_kind
def test_a_cancelled_commit_waits_for_its_end_and_the_version_stands(
    here: Path, kind: Kind, gate: Gate, run: Run
) -> None:
    destination = here / "destination"
    guard = kind.open(destination)

    async def body() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            gate.close()
        await anyio.sleep_forever()

    run(lambda: cancelled_at(gate, body))
    assert guard.committed
    assert kind.read(destination) == "new"
    assert leftovers(here) == []


@each_loop
def test_a_start_that_is_cancelled_before_it_has_begun_never_begins(
    here: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    guard = atomik.file(here / "destination")
    with ThreadPoolExecutor(1) as threads:
        monkeypatch.setattr(_async, "threads", lambda: threads)
        free = threading.Event()
        threads.submit(free.wait, _SECONDS)

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


@pytest.mark.parametrize("run", [LOOPS["trio"], LOOPS["anyio on trio"]], ids=["trio", "anyio"])
def test_trio_does_not_begin_what_is_cancelled_already(here: Path, run: Run) -> None:
    guard = atomik.file(here / "destination")

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with guard:
                pytest.fail("the body ran")

    run(main)
    with guard:
        pass
    assert guard.committed


@pytest.mark.filterwarnings("error")
@each_kind
def test_a_guard_whose_task_was_cancelled_too_early_is_not_warned_of(
    here: Path, kind: Kind
) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with kind.open(here / "destination"):
                pytest.fail("the body ran")

    LOOPS["trio"](main)
    gc.collect()


def test_elsewhere_the_error_names_what_works(here: Path) -> None:
    guard = atomik.file(here / "destination")
    with pytest.raises(RuntimeError, match=r"asyncio and trio.*anyio"):
        guard.__aenter__().send(None)
    with guard:
        pass
    assert guard.committed


# Successes


@each_loop
@each_kind
def test_it_is_entered_and_committed_in_threads_of_its_own(
    here: Path, kind: Kind, gate: Gate, run: Run
) -> None:
    destination = here / "destination"

    async def main() -> None:
        async with kind.open(destination) as staging:
            kind.write(staging, "new")
            assert not destination.exists()

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


@each_loop
def test_more_guards_at_once_than_there_are_threads(here: Path, run: Run) -> None:
    count = _async.MAX_THREADS * 2
    entered = 0

    async def main() -> None:
        everybody = anyio.Event()

        async def save(number: int) -> None:
            nonlocal entered
            async with atomik.file(here / str(number), durability="none") as f:
                entered += 1
                if entered == count:
                    everybody.set()
                await everybody.wait()
                f.write("new")

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(save, number)

    run(main)
    assert len(list(here.iterdir())) == count


def test_trios_own_threads_are_not_waited_for(here: Path) -> None:
    async def main() -> None:
        trio.to_thread.current_default_thread_limiter().total_tokens = 1
        free = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, free.wait, _SECONDS)
            await trio.testing.wait_all_tasks_blocked()
            async with atomik.file(here / "destination") as f:
                f.write("new")
            assert not free.is_set()
            free.set()

    _under_trio(main)
    assert (here / "destination").read_text() == "new"


def test_trio_as_a_guest_of_asyncio_and_its_host_both_work(here: Path) -> None:
    async def save(name: str) -> None:
        async with atomik.file(here / name) as f:
            f.write("new")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            save,
            "guest",
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        await save("host")
        (await ended).unwrap()

    _under_asyncio(main)
    assert sorted(path.name for path in here.iterdir()) == ["guest", "host"]
