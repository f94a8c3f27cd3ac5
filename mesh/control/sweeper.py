"""Ends jobs at their deadline that no worker ends: queued with nobody alive, or left behind.

One process of a mesh does it, whichever holds the seat. It looks at each request once, when it has waited a sweep
or longer, so a mesh that keeps up is hardly read at all.
"""

import asyncio
import logging

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.broker.delivery import StoredRequest
from mesh.broker.seat import Seat
from mesh.control.deadlines import Deadlines
from mesh.control.endings import Endings
from mesh.errors import MeshError
from mesh.protocol.messages import ErrorInfo
from mesh.protocol.subjects import Names
from mesh.protocol.validate import deadline_of
from mesh.worker.runner import now_unix_ms

log = logging.getLogger("mesh.control")

SWEEP_S = 1.0
AT_ONCE = 32  # jobs being ended at the same time
BATCH = 1024  # jobs ended in one sweep
RETRY_MS = 2000  # until a job that could not be ended is looked at again


class Sweeper:
    """Sweeps in one process, until `close`."""

    def __init__(self, connection: Connection, names: Names, who: str) -> None:
        """`who` hosts it: the name of a worker, or of another process."""
        self._connection = connection
        self._names = names
        self._seat = Seat(connection, names, "sweeper", who)
        self._endings = Endings(connection, names, who)
        self._deadlines = Deadlines()
        self._read = 0  # requests up to here are noted
        self._seen = 0  # the newest request at the last sweep
        self.ended = 0  # jobs
        self._task = asyncio.create_task(self._run(), name="mesh-sweep")

    async def close(self) -> None:
        """Sweep no more; the seat falls free by itself."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if await self._seat.hold():
                    await self._sweep()
                else:
                    self._deadlines, self._read, self._seen = Deadlines(), 0, 0
            except MeshError as error:
                log.debug("the sweep for deadlines was put off: %s", error)
            except Exception:  # a sweep that meets a fault is followed by others
                log.exception("a sweep for deadlines failed", extra={"event": "sweep_failed"})
            await asyncio.sleep(SWEEP_S)

    async def _sweep(self) -> None:
        state = await topology.stream_state(self._connection, self._names.requests_stream)
        await self._note(self._seen)
        self._seen = state["last_seq"]
        due = self._deadlines.due(now_unix_ms(), state["first_seq"], BATCH)
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._expire(sequence, gate) for sequence in due))

    async def _note(self, newest: int) -> None:
        """Note the requests that were there a sweep ago and still are."""
        while self._read < newest:
            page = await self._endings.queue.read(self._read)
            for stored in page:
                if stored.sequence <= newest:
                    self._deadlines.note(stored.sequence, deadline_of(stored.request, stored.stored_unix_ms))
            self._read = min(newest, page[-1].sequence) if page else newest

    async def _expire(self, sequence: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                stored = await self._endings.queue.get(sequence)
                if stored is not None and stored.address is not None:
                    await self._end(stored)
            except MeshError as error:
                log.debug("request %d could not be ended: %s", sequence, error)
                self._deadlines.note(sequence, now_unix_ms() + RETRY_MS)

    async def _end(self, stored: StoredRequest) -> None:
        if stored.error is not None:  # nobody was there to refuse it
            reason = ErrorInfo(code=stored.error.code, message=str(stored.error))
            await self._endings.end(stored, "failed", reason)
        else:
            reason = ErrorInfo(code="expired", message="the deadline passed, and no worker was there to end the job")
            await self._endings.end(stored, "expired", reason)
        self.ended += 1
