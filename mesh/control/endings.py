"""Ends a queued job without running it: cancelled in the queue, or for a model nobody serves.

The order is the worker's: store, announce, remove. A worker that begins the job at the same moment finds the
Result when it wants to create its own, announces this one, and acknowledges.
"""

from mesh.broker.connection import Connection
from mesh.broker.delivery import StoredRequest
from mesh.broker.journal import Journal
from mesh.broker.queue import RequestQueue
from mesh.broker.store import ResultStore
from mesh.errors import BrokerError, SequenceError
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import DEFAULT_RESULT_TTL_MS, ErrorInfo, Result, Status
from mesh.protocol.subjects import Names

TRIES = 5


class Endings:
    """Writes the Results of jobs that no worker runs."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self.journal = Journal(connection, names)
        self.store = ResultStore(connection, names)
        self.queue = RequestQueue(connection, names)

    async def end(self, stored: StoredRequest, status: Status, error: ErrorInfo, now_unix_ms: int) -> Result:
        """Give a queued job its Result and take it out of the queue; the Result that counts is returned.

        Raises:
            BrokerError: NATS did not answer; doing it again is safe.
        """
        assert stored.address is not None
        tenant, request = stored.address.tenant, stored.request
        result = Result(
            id=stored.job,
            tenant=tenant,
            model=stored.address.model,
            status=status,
            text="",
            error=error,
            finished_unix_ms=now_unix_ms,
            metadata=request.metadata if request is not None else None,
        )
        ttl_ms = request.result_ttl_ms if request is not None else DEFAULT_RESULT_TTL_MS
        body = codec.encode(result, stored.encoding)
        if not await self.store.create(tenant, stored.job, body, ttl_ms):
            found = await self.store.get_written(tenant, stored.job)
            result = found.result if found is not None else result
        await self.announce(tenant, stored.job, result, stored.encoding)
        await self.queue.remove(stored.sequence)
        return result

    async def announce(self, tenant: str, job: str, result: Result, encoding: Encoding) -> None:
        """Publish the Result as the job's last event, unless it is there already.

        Raises:
            BrokerError: not done after several tries.
        """
        subject = self.journal.subject(tenant, job)
        body = codec.encode(result, encoding)
        for _ in range(TRIES):
            last = await self.journal.last(subject)
            if last is not None and isinstance(last.event, Result):
                return
            try:
                await self.journal.append(subject, body, last.sequence if last is not None else 0)
            except SequenceError:
                continue
            return
        raise BrokerError(f"the Result of {job} could not be announced: its journal keeps growing")
