"""Who may use the engine at the same time."""

import asyncio

from mesh.worker.solitude import Solitude


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_company_shares():
    door = Solitude()
    assert door.take(alone=False)
    assert door.take(alone=False)
    assert not door.take(alone=True)
    assert not door.is_wanted


async def test_one_alone_waits_for_all_and_nobody_begins_meanwhile():
    door = Solitude()
    assert door.take(alone=False)
    alone = asyncio.create_task(door.wait(alone=True))
    await settled()
    assert door.is_wanted
    assert not door.take(alone=False)
    company = [asyncio.create_task(door.wait(alone=False)) for _ in range(2)]
    await settled()
    door.leave(alone=False)
    await settled()
    assert alone.done()
    assert not any(task.done() for task in company)
    door.leave(alone=True)
    await settled()
    assert all(task.done() for task in company)
    assert not door.is_wanted


async def test_those_who_want_to_be_alone_go_one_after_the_other():
    door = Solitude()
    assert door.take(alone=True)
    tasks = [asyncio.create_task(door.wait(alone=True)) for _ in range(3)]
    for n_done in range(3):
        await settled()
        assert sum(task.done() for task in tasks) == n_done
        door.leave(alone=True)
    await settled()
    assert all(task.done() for task in tasks)


async def test_who_gives_up_leaves_the_line():
    door = Solitude()
    assert door.take(alone=False)
    alone = asyncio.create_task(door.wait(alone=True))
    await settled()
    company = asyncio.create_task(door.wait(alone=False))
    await settled()
    alone.cancel()
    await settled()
    assert company.done()
    assert not door.is_wanted


async def test_a_place_given_to_who_just_left_goes_to_the_next():
    door = Solitude()
    assert door.take(alone=True)
    first, second = (asyncio.create_task(door.wait(alone=True)) for _ in range(2))
    await settled()
    door.leave(alone=True)  # it is the first one's turn, and it has not noticed yet
    first.cancel()
    await settled()
    assert first.cancelled()
    assert second.done()
    door.leave(alone=True)
    assert door.take(alone=False)
