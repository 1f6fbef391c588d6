"""`async with` under every event loop: each end of a body is the same as without `async`."""

import asyncio
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import atomik
import pytest
import trio
import trio.testing
from atomik import _async
from support.event_loops import SECONDS, Run, each_loop, under_asyncio, under_trio
from support.guard_kinds import Kind, each_kind
from support.processes import run_program

# Failures


@each_loop
@each_kind
def test_a_refusal_is_raised_on_entering(here: Path, kind: Kind, run: Run) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")

    async def main() -> None:
        with pytest.raises(atomik.FileAlreadyExistsError) as caught:
            async with kind.open(destination):
                pytest.fail("the body ran")
        assert caught.value.filename == os.fspath(destination)

    run(main)
    assert kind.read(destination) == "old"


@each_loop
@each_kind
@pytest.mark.parametrize("before", [[], ["destination"]], ids=["new", "replaced"])
def test_an_exception_in_the_body_rolls_back(
    here: Path, kind: Kind, before: list[str], run: Run
) -> None:
    for name in before:
        kind.publish(here / name, "old")
    guard = kind.open(here / "destination", overwrite=True)

    async def main() -> None:
        with pytest.raises(LookupError, match="mine"):
            async with guard as staging:
                kind.write(staging, "half")
                raise LookupError("mine")

    run(main)
    assert not guard.committed
    assert os.listdir(here) == before
    assert all(kind.read(here / name) == "old" for name in before)


@each_loop
@each_kind
def test_a_failed_commit_is_raised_and_leaves_nothing(here: Path, kind: Kind, run: Run) -> None:
    destination = here / "destination"
    guard = kind.open(destination)

    async def main() -> None:
        with pytest.raises(atomik.FileAlreadyExistsError) as caught:
            async with guard as staging:
                kind.write(staging, "new")
                kind.publish(destination, "other")
        assert caught.value.errno == errno.EEXIST

    run(main)
    assert not guard.committed
    assert kind.read(destination) == "other"
    assert os.listdir(here) == ["destination"]


@each_loop
@each_kind
def test_entering_twice_is_refused(here: Path, kind: Kind, run: Run) -> None:
    guard = kind.open(here / "destination")

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
        with pytest.raises(RuntimeError, match="entered once"):
            async with guard:
                pytest.fail("the body ran")

    run(main)
    assert kind.read(here / "destination") == "new"


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
def test_a_commit_in_the_body_is_the_end(here: Path, kind: Kind, run: Run) -> None:
    guard = kind.open(here / "destination")

    async def main() -> None:
        async with guard as staging:
            kind.write(staging, "new")
            guard.commit()
            assert kind.read(here / "destination") == "new"

    run(main)
    assert guard.committed


@each_loop
@each_kind
def test_many_tasks_replace_one_destination(here: Path, kind: Kind, run: Run) -> None:
    destination = here / "destination"

    async def write(version: str) -> None:
        async with kind.open(destination, overwrite=True, durability="none") as staging:
            kind.write(staging, version)
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(write, f"version {number}")

    run(main)
    assert kind.read(destination) in {f"version {number}" for number in range(40)}
    assert os.listdir(here) == ["destination"]


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


def test_the_loops_own_executor_is_not_waited_for(here: Path) -> None:
    """What runs there may itself wait for a guard, by `run_coroutine_threadsafe`."""
    destination = here / "destination"

    async def save() -> None:
        async with atomik.file(destination) as f:
            f.write("new")

    def job(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.run_coroutine_threadsafe(save(), loop).result(SECONDS)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        await loop.run_in_executor(None, job, loop)

    under_asyncio(main)
    assert destination.read_text() == "new"


def test_trios_own_threads_are_not_waited_for(here: Path) -> None:
    async def main() -> None:
        trio.to_thread.current_default_thread_limiter().total_tokens = 1
        free = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, free.wait, SECONDS)
            await trio.testing.wait_all_tasks_blocked()
            async with atomik.file(here / "destination") as f:
                f.write("new")
            assert not free.is_set()
            free.set()

    under_trio(main)
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

    under_asyncio(main)
    assert sorted(path.name for path in here.iterdir()) == ["guest", "host"]


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
