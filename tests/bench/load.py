"""Loads: how requests are put to a side."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def keep_open(at_once: int, calls: Sequence[Callable[[], Awaitable[T]]], spread_s: float = 0.0) -> list[T]:
    """Make all calls, `at_once` at a time: each that ends lets the next begin. Results in the order of ending.

    `spread_s`: the time over which the first ones begin.
    """
    waiting, found = iter(calls), []

    async def lane(number: int) -> None:
        await asyncio.sleep(spread_s * number / at_once)
        for call in waiting:
            found.append(await call())  # noqa: PERF401  # in the order of ending, of all lanes

    async with asyncio.TaskGroup() as group:
        for number in range(min(at_once, len(calls))):
            group.create_task(lane(number))
    return found


class Watch:
    """A stop watch."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s
