"""Looks at the whole mesh for whoever scrapes this process, in one process of the mesh at a time.

What waits is a fact of the mesh and not of any process, and reading it costs NATS some requests; so of all processes
that are scraped one holds a lease and shows it, and the others leave it out. It looks only while somebody scrapes.
Hosted by every process that has a telemetry port.
"""

import asyncio
import logging
from collections import Counter

from mesh.broker.broker import Broker
from mesh.clock import SYSTEM, Clock
from mesh.control.status.depth import QueueDepth, Snapshot
from mesh.control.status.snapshot import snapshot
from mesh.errors import MeshError
from mesh.protocol.timing import PRESENCE_BEAT_S
from mesh.reconcile.leader import LeaderLease
from mesh.telemetry.readings import MeshReading, QueueReading, StoreReading

log = logging.getLogger("mesh.control")

POLL_S = 5.0  # between looks: what waits is shown no older than that, and scrapers come less often
STALE_S = 15.0  # a reading that old is shown no more
LOOK_S = 2 * PRESENCE_BEAT_S  # for one look: the lease has to be renewed meanwhile
IDLE_S = 90.0  # without a scrape: then it looks no more, and another may have the lease
PATIENT_S = 2 * PRESENCE_BEAT_S  # between asks for a lease that another holds


class MeshExporter:
    """`run` it on a connection; `asked` gives what it knows. One object outlives many connections."""

    def __init__(self, who: str, clock: Clock = SYSTEM) -> None:
        """`who` tells this process from others."""
        self._who = who
        self._clock = clock
        self._asked_s = float("-inf")
        self._asked = asyncio.Event()
        self._reading: MeshReading | None = None
        self._read_s = float("-inf")

    def asked(self) -> MeshReading | None:
        """The mesh, if this process is the one that shows it. Called for every scrape: it is what keeps us looking."""
        self._asked_s = self._clock.monotonic_s()
        self._asked.set()
        return self._reading if self._clock.monotonic_s() - self._read_s < STALE_S else None

    @property
    def is_asked(self) -> bool:
        """Whether somebody scrapes, and so whether it looks."""
        return self._asked.is_set()

    async def run(self, broker: Broker) -> None:
        """Look, while somebody asks and the lease is ours, until cancelled."""
        lease = LeaderLease(broker, "mesh_exporter", self._who)
        try:
            while True:
                await self._asked.wait()
                is_ours = await lease.hold()
                if not is_ours:
                    self._reading = None
                elif self._clock.monotonic_s() - self._read_s >= POLL_S:
                    await self._look(broker)
                if self._clock.monotonic_s() - self._asked_s > IDLE_S:
                    self._asked.clear()
                await asyncio.sleep(PRESENCE_BEAT_S if is_ours else PATIENT_S)
        except Exception:  # the outermost frame: the process serves on, and its scrapers see no mesh
            log.exception("the mesh is not looked at any more", extra={"event": "mesh_exporter_broke"})
        finally:
            self._reading = None

    async def _look(self, broker: Broker) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                self._reading = reading_of(await snapshot(broker))
            self._read_s = self._clock.monotonic_s()
        except (MeshError, TimeoutError) as error:
            log.debug("the mesh could not be looked at: %r", error, extra={"event": "mesh_exporter_failed"})


def reading_of(seen: Snapshot) -> MeshReading:
    """A snapshot as it is shown: without tenants and workers' names, of which there may be many.

    A model that nobody declared is any word a client made up, so its jobs are only counted.
    """
    declared = [queue for queue in seen.queues if queue.is_declared]
    unserved = seen.unroutable + sum(queue.jobs for queue in seen.queues if not queue.is_declared)
    workers = Counter((each.presence.model, each.presence.state) for each in seen.workers)
    return MeshReading(
        unix_s=seen.unix_ms / 1000,
        queues=[_queue(each) for each in declared],
        stores=[StoreReading(each.name, each.messages, each.bytes) for each in seen.stores],
        workers=[(model, state, count) for (model, state), count in sorted(workers.items())],
        dead_letters=seen.dead_letters,
        unserved_jobs=unserved,
    )


def _queue(queue: QueueDepth) -> QueueReading:
    return QueueReading(
        model=queue.model,
        tier=queue.tier,
        waiting=queue.waiting,
        in_flight=queue.in_flight,
        redelivered=queue.redelivered,
        pulls=queue.pulls,
        is_paused=queue.pause_left_ms > 0,
        oldest_s=queue.oldest_ms / 1000 if queue.oldest_ms is not None else None,
        oldest_waiting_s=queue.oldest_waiting_ms / 1000 if queue.oldest_waiting_ms is not None else None,
    )
