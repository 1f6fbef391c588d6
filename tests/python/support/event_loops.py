"""Running a coroutine under each event loop: asyncio, trio, and anyio on both."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import anyio
import pytest
import trio

SECONDS: Final = 60
"""Nothing that is waited for takes longer."""

Main: TypeAlias = Callable[[], Awaitable[None]]
Run: TypeAlias = Callable[[Main], None]


def under_asyncio(main: Main) -> None:
    async def limited() -> None:
        await asyncio.wait_for(main(), SECONDS)

    asyncio.run(limited())


def under_trio(main: Main) -> None:
    async def limited() -> None:
        with trio.fail_after(SECONDS):
            await main()

    trio.run(limited)


def _under_anyio(backend: str) -> Run:
    async def limited(main: Main) -> None:
        with anyio.fail_after(SECONDS):
            await main()

    return lambda main: anyio.run(limited, main, backend=backend)


LOOPS: Final[dict[str, Run]] = {
    "asyncio": under_asyncio,
    "trio": under_trio,
    "anyio on asyncio": _under_anyio("asyncio"),
    "anyio on trio": _under_anyio("trio"),
}

each_loop = pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
