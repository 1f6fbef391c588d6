"""`async with`: entering and ending a guard off the event loop."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Guard(Protocol[T_co]):
    """What both kinds of guard have."""

    def __enter__(self) -> T_co: ...
    def __exit__(self, *exc: object) -> bool: ...


async def enter(guard: Guard[T]) -> T:
    """Enters in a thread; a cancellation meanwhile waits for it, then rolls back."""
    try:
        return await in_thread(guard.__enter__)
    except asyncio.CancelledError:
        await in_thread(lambda: guard.__exit__(asyncio.CancelledError, None, None))
        raise


async def leave(guard: Guard[object], exc: tuple[object, ...]) -> bool:
    """Commits or rolls back in a thread; a cancellation meanwhile waits for its end."""
    return await in_thread(lambda: guard.__exit__(*exc))


async def in_thread(call: Callable[[], T]) -> T:
    """Runs a call in the loop's executor; a cancellation is raised only when the call has ended."""
    future = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, call)
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from future.exception()
    return future.result()
