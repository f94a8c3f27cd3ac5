"""Workers read of each other what they need to share the lanes, and no more than that."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.broker.broker import Broker
from mesh.broker.stores.workers import PresenceStore
from mesh.engines.base import EngineInfo
from mesh.protocol.messages import Presence
from mesh.worker.presence import LOOK_EACH_S, PresenceBoard, WorkerLoad
from tests.running import MODEL, running_mesh, wait_until

LANES = 4
SOME_S = 1.0  # in which a few are looked at several times, and many once


class CountingStore(PresenceStore):
    """Counts how often everybody is asked for."""

    asked = 0

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.broker = broker

    async def all(self) -> list[Presence]:
        self.asked += 1
        return await super().all()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    async with running_mesh(tmp_path / "nats") as mesh:
        store = CountingStore(mesh.broker)
        vars(mesh.broker)["workers"] = store
        yield store


async def meet(store: CountingStore, count: int) -> PresenceBoard:
    """The board of one of `count` workers, that has looked once."""
    info = EngineInfo(name="e", version="1", model=MODEL, capacity=1, max_model_len=8)
    boards = [PresenceBoard(store.broker, f"w-{number}", MODEL, info, LANES) for number in range(count)]
    for each in boards:
        each.beat(WorkerLoad("ready", running=0, finished=0, tokens=0), capacity=1)

    async def all_are_seen() -> bool:
        return len(await PresenceStore.all(store)) == count

    await wait_until(all_are_seen)
    await boards[0].look()
    return boards[0]


async def test_few_workers_look_at_each_other_with_every_beat(store: CountingStore) -> None:
    board = await meet(store, 3)
    assert board.owned < frozenset(range(LANES))
    store.remove("w-1")
    store.remove("w-2")

    async def has_all_lanes() -> bool:
        await board.look()
        return board.owned == frozenset(range(LANES))

    await wait_until(has_all_lanes)


async def test_many_workers_do_not_read_more_of_each_other_than_few(store: CountingStore) -> None:
    count = 50
    board = await meet(store, count)
    assert LOOK_EACH_S * count > 2 * SOME_S
    end_s = time.monotonic() + SOME_S
    while time.monotonic() < end_s:
        await board.look()
        await asyncio.sleep(0.05)
    assert store.asked == 1
