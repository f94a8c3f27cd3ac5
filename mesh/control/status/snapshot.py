"""Reads the state of a whole mesh from NATS. Changes nothing."""

import asyncio

from msgspec.structs import replace

from mesh.broker.broker import Broker
from mesh.broker.inspect.facts import LaneFacts
from mesh.broker.inspect.inspector import Inspector
from mesh.broker.stores.workers import Beat, PresenceStore
from mesh.control.status import depth
from mesh.control.status.depth import QueueDepth, Rates, Snapshot, WorkerSeen
from mesh.errors import TopologyError
from mesh.protocol.subjects import Names, is_token


async def snapshot(broker: Broker) -> Snapshot:
    """Returns the current state: concurrent reads first, then the ages of waiting jobs.

    Raises:
        TopologyError: there is no mesh on this NATS.
        BrokerError: NATS did not answer.
    """
    inspector = Inspector(broker)
    now_ms = await inspector.clock()
    server, (stores, missing), depths, lanes, beats = await asyncio.gather(
        inspector.server(), inspector.stores(), inspector.depths(), inspector.lanes(), _beats(broker.workers)
    )
    queues, unroutable = depth.read_queues(broker.names, depths, lanes)
    dead = next((each.messages for each in stores if each.name == broker.names.dead_stream), 0)
    return Snapshot(
        unix_ms=now_ms,
        server=server,
        stores=stores,
        missing=missing,
        queues=await _aged(inspector, broker.names, queues, now_ms),
        unroutable=unroutable,
        workers=[_seen(beat, now_ms) for beat in beats],
        dead_letters=dead,
    )


def rates(before: Snapshot, after: Snapshot, names: Names) -> Rates:
    """Returns the rates between two snapshots, `before` the older."""
    return depth.rates(before, after, names.requests_stream)


async def _beats(workers: PresenceStore) -> list[Beat]:
    try:
        beats = await workers.beats()
    except TopologyError:
        return []  # the bucket is missing; the snapshot reports that
    return sorted(beats, key=lambda beat: (beat.presence.model, beat.presence.worker))


def _seen(beat: Beat, now_ms: int) -> WorkerSeen:
    return WorkerSeen(presence=beat.presence, beat_unix_ms=beat.unix_ms, age_ms=max(0, now_ms - beat.unix_ms))


async def _aged(inspector: Inspector, names: Names, queues: list[QueueDepth], now_ms: int) -> list[QueueDepth]:
    """Returns the queues with the ages of their oldest jobs."""
    asks: dict[tuple[str, int], None] = {}
    for queue in queues:
        asks |= dict.fromkeys(_asks(names, queue))
    times = dict(zip(asks, await inspector.stored_times(list(asks)), strict=True))

    def oldest(keys: list[tuple[str, int]]) -> int | None:
        known = [time for time in map(times.get, keys) if time is not None]
        return max(0, now_ms - min(known)) if known else None

    return [
        replace(
            queue,
            oldest_ms=oldest(_asks(names, queue)[:1]),
            oldest_waiting_ms=oldest(_asks(names, queue)[1:]) if queue.lanes else oldest(_asks(names, queue)[:1]),
        )
        for queue in queues
    ]


def _asks(names: Names, queue: QueueDepth) -> list[tuple[str, int]]:
    """Returns the places to read: a queue's oldest job, then each lane's oldest waiting job."""
    if not queue.jobs or not (is_token(queue.model) and is_token(queue.tier)):
        return []
    first = (names.request(queue.model, queue.tier, "*", "*"), 1)
    return [first, *(_ask(names, lane) for lane in queue.lanes if lane.pending)]


def _ask(names: Names, lane: LaneFacts) -> tuple[str, int]:
    return names.request(lane.model, lane.tier, "*", lane.lane), lane.delivered_sequence + 1
