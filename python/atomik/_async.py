"""`async with`: entering and ending a guard off the event loop, under asyncio and trio (anyio runs on one of these)."""

import contextvars
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_THREADS: Final = 32
"""So many guards are entered or ended at once. None of them ever waits for another one."""


class Guard(Protocol[T_co]):
    """What all kinds of guard have."""

    def __enter__(self) -> T_co: ...
    def __exit__(self, *exc: object) -> bool: ...


async def enter(guard: Guard[T]) -> T:
    """Enters in a thread.

    A cancellation before that has begun keeps it from beginning; one meanwhile waits for its end, then rolls back.
    """
    loop = here()
    await loop.checkpoint()
    entering = begin(guard.__enter__)
    stopped = await ended(entering, loop, withdraw=True)
    if stopped is None:
        return entering.result()
    if entering.cancelled():
        raise stopped
    leaving = begin(lambda: guard.__exit__(type(stopped), stopped, None))
    await ended(leaving, loop, withdraw=False)
    raise stopped from leaving.exception() or entering.exception()


async def leave(guard: Guard[object], exc: tuple[object, ...]) -> bool:
    """Commits or rolls back in a thread; a cancellation meanwhile waits for its end."""
    loop = here()
    leaving = begin(lambda: guard.__exit__(*exc))
    stopped = await ended(leaving, loop, withdraw=False)
    if stopped is not None:
        raise stopped from leaving.exception()
    return leaving.result()


@cache
def threads() -> ThreadPoolExecutor:
    """Returns the threads of all guards: not those of the event loop, which may all be waiting for a guard."""
    return ThreadPoolExecutor(MAX_THREADS, "atomik")


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=threads.cache_clear)


def begin(call: Callable[[], T]) -> "Future[T]":
    """Begins a call in a thread, as soon as one is free."""
    return threads().submit(contextvars.copy_context().run, call)


async def ended(call: "Future[Any]", loop: "Loop", *, withdraw: bool) -> BaseException | None:
    """Waits until a call has ended, whatever stops the task meanwhile, and answers what did.

    With `withdraw`, a call that has not begun by then never does.
    """
    done = loop.event()

    def wake(_: object) -> None:
        # Somebody who closes a loop does not wait for its tasks.
        with suppress(RuntimeError):
            loop.call_soon(done.set)

    call.add_done_callback(wake)
    stopped: BaseException | None = None
    while not done.is_set():
        try:
            with loop.scope(shield=stopped is not None):
                await done.wait()
        except loop.stops as error:
            stopped = stopped or error
            if withdraw and call.cancel():
                break
    return stopped


class Loop(NamedTuple):
    """What is needed of an event loop."""

    event: Callable[[], Any]
    call_soon: Callable[[Callable[[], None]], object]
    """From any thread."""
    checkpoint: Callable[[], Awaitable[None]]
    stops: tuple[type[BaseException], ...]
    """What stops a task that waits."""
    scope: Callable[..., AbstractContextManager[Any]]
    """Takes `shield`: trio raises a cancellation again and again, wherever the task waits without a shield."""


async def nothing() -> None:
    """Asyncio raises a cancellation that is due where the task waits next: no point for it is needed."""


def no_scope(*, shield: bool) -> AbstractContextManager[None]:
    """Is what asyncio needs: it raises each cancellation once."""
    del shield
    return nullcontext()


def here() -> Loop:
    """Finds the event loop of this task. Trio is not imported for it: if it runs, it has been."""
    trio = sys.modules.get("trio")
    if trio is not None and in_task(trio):
        return Loop(
            trio.Event,
            trio.lowlevel.current_trio_token().run_sync_soon,
            trio.lowlevel.checkpoint_if_cancelled,
            (trio.Cancelled, KeyboardInterrupt),
            trio.CancelScope,
        )
    import asyncio  # noqa: PLC0415 - not for programs that run trio

    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "'async with' works under asyncio and trio, and under anyio, which runs on one of them: "
            "no task of theirs is running here"
        ) from None
    return Loop(
        asyncio.Event,
        running.call_soon_threadsafe,
        nothing,
        (asyncio.CancelledError,),
        no_scope,
    )


def in_task(trio: ModuleType) -> bool:
    """Is a task of trio running here? Its loop may have asyncio's for a host, and both are running then."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
