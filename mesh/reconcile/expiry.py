"""Ends jobs at their deadline that no worker ends: queued without a live worker, or left behind.

One process of a mesh does this, the one that holds the lease. It reads each request once, after the request has waited
for a sweep. So it reads almost nothing in a mesh without a backlog.
"""

import asyncio
import logging

from mesh.audit.writer import Auditor
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import StoredRequest
from mesh.errors import MeshError
from mesh.protocol.messages import ErrorInfo
from mesh.protocol.timing import EXPIRY_SWEEP_S
from mesh.protocol.validate import deadline_of
from mesh.reconcile.deadlines import Deadlines
from mesh.reconcile.leader import LeaderLease
from mesh.reconcile.termination import Termination

log = logging.getLogger("mesh.reconcile")

AT_ONCE = 32  # jobs being ended at the same time
BATCH = 1024  # jobs ended in one sweep
SLACK = 1000  # deadlines of ended jobs that may stay in memory
RETRY_MS = 2000  # before the next try to end a job that could not be ended


class Expiry:
    """Sweeps in one process, until `close`."""

    def __init__(self, broker: Broker, host: str, audit: Auditor | None = None) -> None:
        """`host`: the name of a worker, or of another process."""
        self._broker = broker
        self._leadership = LeaderLease(broker, "expiry", host)
        self._termination = Termination(broker, host, "deadline", audit)
        self._deadlines = Deadlines()
        self._read = 0  # requests up to here are noted
        self._seen = 0  # the newest request at the last sweep
        self._now_ms = 0  # the server's clock then
        self.ended = 0  # jobs
        self._task = asyncio.create_task(self._run(), name="mesh-sweep")

    async def close(self) -> None:
        """Stop sweeping; the lease expires by itself."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if await self._leadership.hold():
                    await self._sweep()
                else:
                    self._forget()
            except MeshError as error:
                log.debug("the sweep for deadlines was put off: %s", error)
            except Exception:  # a sweep that meets a fault is followed by others
                log.exception("a sweep for deadlines failed", extra={"event": "sweep_failed"})
            await asyncio.sleep(EXPIRY_SWEEP_S)

    def _forget(self) -> None:
        self._deadlines, self._read, self._seen = Deadlines(), 0, 0

    async def _sweep(self) -> None:
        # The server's clock, which stamps every request: a fast clock here must not end jobs early.
        state, self._now_ms = await topology.stream_clock(self._broker, self._broker.names.requests_stream)
        if len(self._deadlines) > 2 * state["messages"] + SLACK:  # of jobs that have long ended
            self._forget()
        await self._note(self._seen)
        self._seen = state["last_seq"]
        due = self._deadlines.due(self._now_ms, state["first_seq"], BATCH)
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._expire(sequence, gate) for sequence in due))

    async def _note(self, newest: int) -> None:
        """Note the requests that have waited since the last sweep."""
        if self._read >= newest:
            return
        async for page in self._termination.queue.pages(self._read):
            for stored in page:
                if stored.sequence <= newest:
                    self._deadlines.note(stored.sequence, deadline_of(stored.request, stored.stored_unix_ms))
            self._read = min(newest, page[-1].sequence)
            if self._read == newest:
                return
        # A replica may lag: do not skip requests that it does not show yet.
        if not await self._termination.queue.has_after(self._read):
            self._read = newest

    async def _expire(self, sequence: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                stored = await self._termination.queue.get(sequence)
                if stored is not None and stored.address is not None:
                    await self._end(stored)
            except MeshError as error:
                log.debug("request %d could not be ended: %s", sequence, error)
                self._deadlines.note(sequence, self._now_ms + RETRY_MS)

    async def _end(self, stored: StoredRequest) -> None:
        if await self._termination.is_twin(stored):
            await self._termination.queue.remove(stored.sequence)  # a job of that id is served, or was
            return
        if stored.error is not None:  # no worker was there to refuse it
            reason = ErrorInfo(code=stored.error.code, message=str(stored.error))
            await self._termination.end(stored, "failed", reason)
        else:
            reason = ErrorInfo(code="expired", message="the deadline passed, and no worker was there to end the job")
            await self._termination.end(stored, "expired", reason)
        self.ended += 1
