"""Work in a scope ends when the scope is cancelled, and the task that does it goes on as if nothing had been."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from mesh.worker.cancel_scope import CancelScope

TURNS = 5  # of the loop: enough for a cancellation that was left behind to be noticed


async def goes_on() -> bool:
    """Whether awaiting is undisturbed."""
    task = asyncio.current_task()
    assert task is not None
    for _ in range(TURNS):
        await asyncio.sleep(0)
    return task.cancelling() == 0


async def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    return task


async def test_what_the_work_returns_is_returned() -> None:
    assert await CancelScope().run(asyncio.sleep(0, "done")) == "done"
    assert await goes_on()


async def test_what_the_work_raises_is_raised() -> None:
    async def breaks() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await CancelScope().run(breaks())


async def test_work_that_waits_is_cut_short_and_its_task_goes_on() -> None:
    scope = CancelScope()

    async def task_of_it() -> tuple[object, bool]:
        return await scope.run(asyncio.Event().wait()), await goes_on()

    task = await started(task_of_it())
    scope.cancel()
    assert await task == (None, True)


async def test_cancelled_twice_it_is_cut_short_once() -> None:
    scope = CancelScope()

    async def task_of_it() -> tuple[object, bool]:
        return await scope.run(asyncio.Event().wait()), await goes_on()

    task = await started(task_of_it())
    scope.cancel()
    scope.cancel()
    await asyncio.sleep(0)
    scope.cancel()
    assert await task == (None, True)


async def test_the_work_may_cancel_its_own_scope() -> None:
    scope = CancelScope()

    async def work() -> str:
        scope.cancel()
        await asyncio.Event().wait()
        return "never"

    assert await scope.run(work()) is None
    assert await goes_on()


async def test_work_that_cancels_its_scope_and_is_done_returns_and_nothing_is_left_behind() -> None:
    scope = CancelScope()

    async def work() -> str:
        scope.cancel()
        return "done"

    assert await scope.run(work()) == "done"
    assert await goes_on()


async def test_work_that_was_done_when_it_was_cancelled_leaves_nothing_behind() -> None:
    scope, ready = CancelScope(), asyncio.Event()

    async def task_of_it() -> tuple[object, bool]:
        return await scope.run(ready.wait()), await goes_on()

    task = await started(task_of_it())
    ready.set()  # the task is about to be resumed
    scope.cancel()
    assert (await task)[1]


async def test_a_scope_without_work_is_cancelled_in_vain() -> None:
    scope = CancelScope()
    scope.cancel()
    assert await scope.run(asyncio.sleep(0, "done")) == "done"
    scope.cancel()
    assert await goes_on()


async def test_cut_short_it_may_be_used_again() -> None:
    scope = CancelScope()
    asyncio.get_running_loop().call_later(0.001, scope.cancel)
    assert await scope.run(asyncio.Event().wait()) is None
    assert await scope.run(asyncio.sleep(0, "done")) == "done"
    assert await goes_on()


async def test_work_that_will_not_be_cut_short_returns_what_it_has() -> None:
    scope = CancelScope()

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "all the same"
        return "never"

    async def task_of_it() -> tuple[object, bool]:
        return await scope.run(stubborn()), await goes_on()

    task = await started(task_of_it())
    scope.cancel()
    assert await task == ("all the same", True)


async def test_work_that_cleans_up_is_not_disturbed_by_another_cancellation() -> None:
    scope, cleaning, is_clean = CancelScope(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await is_clean.wait()

    async def task_of_it() -> tuple[object, bool]:
        return await scope.run(work()), await goes_on()

    task = await started(task_of_it())
    scope.cancel()
    await cleaning.wait()
    scope.cancel()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert not task.done()
    is_clean.set()
    assert await task == (None, True)


async def test_the_cancellation_of_the_task_goes_through() -> None:
    task = await started(CancelScope().run(asyncio.Event().wait()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("scope_first", [True, False])
async def test_cancelled_both_ways_the_task_ends(scope_first: bool) -> None:
    scope = CancelScope()
    task = await started(scope.run(asyncio.Event().wait()))
    if scope_first:
        scope.cancel()
        await asyncio.sleep(0)
        task.cancel()
    else:
        task.cancel()
        scope.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_of_the_works_own_is_no_cancellation_of_the_task() -> None:
    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    await CancelScope().run(work())
    assert await goes_on()
