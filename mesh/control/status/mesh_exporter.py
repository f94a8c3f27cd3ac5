"""Exports mesh-wide metrics in one process of the mesh at a time.

Queue depths belong to the mesh, not to a process, and reading them costs NATS several requests. So one of the scraped
processes holds a lease and exports them; the others leave them out. It reads only while it is scraped.
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

POLL_S = 5.0  # between readings; scrapers usually come less often
STALE_S = 15.0  # an older reading is not exported
LOOK_S = 2 * PRESENCE_BEAT_S  # for one reading, so that the lease is renewed in time
IDLE_S = 90.0  # without a scrape until it stops reading and gives up the lease
PATIENT_S = 2 * PRESENCE_BEAT_S  # between attempts to get the lease from another holder


class MeshExporter:
    """Reads the mesh in `run`; `asked` returns the reading. One object serves successive connections."""

    def __init__(self, host: str, clock: Clock = SYSTEM) -> None:
        """`host` is the unique name of this process, which holds the lease."""
        self._host = host
        self._clock = clock
        self._asked_s = float("-inf")
        self._asked = asyncio.Event()
        self._reading: MeshReading | None = None
        self._read_s = float("-inf")

    def asked(self) -> MeshReading | None:
        """Returns the reading if this process exports the mesh. Each scrape calls it, which keeps `run` reading."""
        self._asked_s = self._clock.monotonic_s()
        self._asked.set()
        return self._reading if self._clock.monotonic_s() - self._read_s < STALE_S else None

    @property
    def is_asked(self) -> bool:
        """Returns whether a scraper has called lately; `run` reads only then."""
        return self._asked.is_set()

    async def run(self, broker: Broker) -> None:
        """Reads the mesh while it is scraped and holds the lease, until cancelled."""
        lease = LeaderLease(broker, "mesh_exporter", self._host)
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
        except Exception:  # the outermost frame: the process continues without mesh-wide metrics
            log.exception("the export of mesh-wide metrics stopped", extra={"event": "mesh_exporter_broke"})
        finally:
            self._reading = None

    async def _look(self, broker: Broker) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                self._reading = reading_of(await snapshot(broker))
            self._read_s = self._clock.monotonic_s()
        except (MeshError, TimeoutError) as error:
            log.debug("the mesh could not be read: %r", error, extra={"event": "mesh_exporter_failed"})


def reading_of(seen: Snapshot) -> MeshReading:
    """Converts a snapshot to metrics, without the names of tenants and workers, which can be many.

    Names of undeclared models come from clients, so only the number of their jobs is exported.
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
