"""Ends a job that no worker runs: cancelled or expired in the queue, orphaned, or for a model without workers.

The order is the worker's: store, announce, remove. The journal is closed before that, so that the server refuses all
later events of a worker. The Result's text is therefore the streamed text. A `started` event with `closing` closes a
journal that has events, and a worker that finds it leaves the job alone for ENDING_S. The Result itself closes an
empty journal.
"""

import asyncio

from msgspec.structs import replace

from mesh.audit.entries import ending_of
from mesh.audit.writer import Auditor
from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.stores.journal import events_of
from mesh.errors import BrokerError, SequenceError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.history import History, read_history
from mesh.protocol.messages import ErrorInfo, Result, Started, Status
from mesh.protocol.outcome import Ending, JobFacts, result_of
from mesh.protocol.timing import ENDING_S, LAG_S

TRIES = 5


class Termination:
    """Writes the Results of jobs that no worker runs."""

    def __init__(self, broker: Broker, host: str, cause: str, audit: Auditor | None = None) -> None:
        """`host`: the name of the worker or other process that ends them. `cause`: why, for the audit."""
        self._clock = broker.clock
        self.journal = broker.journal
        self.store = broker.results
        self.queue = broker.queue
        self._host = host
        self._cause = cause
        self._audit = audit

    async def end(self, stored: StoredRequest, status: Status, error: ErrorInfo) -> Result:
        """Store and announce a job's Result and remove its request; return the stored Result.

        A job whose journal shows that it finished ends as finished.

        Raises:
            BrokerError: NATS did not answer; a second call is safe.
        """
        assert stored.address is not None
        tenant, began_s = stored.address.tenant, self._clock.monotonic_s()
        history = await self._close(stored, status, error)
        result = history.result or self._result(stored, history, status, error)
        body = codec.encode(result, stored.encoding)
        if len(body) > self.store.max_bytes:
            name = f"{tenant}.{stored.job}.{result.attempts}"
            await self.store.put_object(name, body)
            result = replace(result, text="", object=name)
            body = codec.encode(result, stored.encoding)
        left_s = began_s + ENDING_S / 2 - self._clock.monotonic_s()
        if left_s <= 0:
            raise BrokerError(f"job {stored.job} could not be ended in time; try again")
        if not await self.store.create(JobKey(tenant, stored.job), body, self._facts(stored).result_ttl_ms, left_s):
            found = await self.store.get_written(JobKey(tenant, stored.job))
            if found is not None:
                result, body = found.result, codec.encode(found.result, stored.encoding)
        await self._announce(JobKey(tenant, stored.job), body)
        await self.queue.remove(stored.sequence)
        if self._audit is not None:
            self._audit.tell(ending_of(result, stored.ref, self._host, self._cause))
        return result

    async def is_twin(self, stored: StoredRequest) -> bool:
        """Whether this request has the id of a job that another request began.

        Raises:
            BrokerError: NATS did not answer.
        """
        assert stored.address is not None
        tenant, job = stored.address.tenant, stored.job
        for subject in (self.journal.subject(JobKey(tenant, job)), self.journal.attempts_subject(JobKey(tenant, job))):
            history = read_history(events_of(await self.journal.read(subject)))
            if history.attempts:
                first = history.request_sequence
                is_another = first not in (0, stored.sequence) and await self.queue.get(first) is not None
                return is_another or stored.request is None
        return False

    async def _announce(self, key: JobKey, body: bytes) -> None:
        """Publish the encoded Result as the job's last event, unless it is there already.

        Raises:
            BrokerError: TRIES tries failed.
        """
        subject = self.journal.subject(key)
        for _ in range(TRIES):
            last = await self.journal.last(subject)
            if last is not None and isinstance(last.event, Result):
                return
            try:
                await self.journal.append(subject, body, last.sequence if last is not None else 0)
            except SequenceError:
                continue
            return
        raise BrokerError(f"the Result of {key.id} could not be announced: its journal keeps growing")

    async def _close(self, stored: StoredRequest, status: Status, error: ErrorInfo) -> History:
        """Read the job's history, and close its journal to workers."""
        assert stored.address is not None
        tenant, job = stored.address.tenant, stored.job
        subject = self.journal.subject(JobKey(tenant, job))
        for _ in range(TRIES):
            last = await self.journal.last(subject)  # the leader's: a direct get may miss the newest
            entries = await self.journal.read(subject) if last is not None else []
            history = read_history(events_of(entries))
            if history.result is not None:
                return history
            if last is not None and (not entries or entries[-1].sequence != last.sequence):
                await asyncio.sleep(LAG_S)
                continue
            try:
                if last is not None:
                    return await self._fence(stored, history, last.sequence)
                if stored.request is not None and stored.request.stream:
                    return await self._forestall(stored, history, status, error)
            except SequenceError:
                continue
            # A job that streams nothing has no readers, so the store alone decides between this process and a worker.
            return read_history(events_of(await self.journal.read(self.journal.attempts_subject(JobKey(tenant, job)))))
        raise BrokerError(f"job {job} keeps growing: a worker runs it")

    async def _fence(self, stored: StoredRequest, history: History, last: int) -> History:
        """Close a journal that has events."""
        assert stored.address is not None
        event = Started(
            id=stored.job,
            attempt=history.attempts + 1,
            index=history.index,
            worker=self._host,
            unix_ms=self._clock.server_unix_ms(),
            sequence=stored.sequence,
            closing=True,
        )
        subject = self.journal.subject(JobKey(stored.address.tenant, stored.job))
        await self.journal.append(subject, codec.encode(event, stored.encoding), last)
        history.apply(event)
        return history

    async def _forestall(self, stored: StoredRequest, history: History, status: Status, error: ErrorInfo) -> History:
        """Close an empty journal: publish the Result of a job that never began as its first event, then store it.

        A worker that finds the Result stores it, so this order loses nothing. In the other order, a worker could begin
        the job in between.
        """
        assert stored.address is not None
        tenant = stored.address.tenant
        found = await self.store.get_written(JobKey(tenant, stored.job))
        history.result = found.result if found is not None else self._result(stored, history, status, error)
        body = codec.encode(history.result, stored.encoding)
        await self.journal.append(self.journal.subject(JobKey(tenant, stored.job)), body, 0)
        return history

    def _result(self, stored: StoredRequest, history: History, status: Status, error: ErrorInfo) -> Result:
        ending = Ending(status, error)
        if history.finish_reason is not None and history.usage is not None:
            ending = Ending("finished", usage=history.usage, finish_reason=history.finish_reason)
        return result_of(self._facts(stored), history, ending, self._clock.server_unix_ms())

    def _facts(self, stored: StoredRequest) -> JobFacts:
        now = self._clock.server_unix_ms()
        return JobFacts(
            ref=stored.ref,
            worker=self._host,
            stored_unix_ms=stored.stored_unix_ms or now,
            received_unix_ms=now,
            request=stored.request,
        )
