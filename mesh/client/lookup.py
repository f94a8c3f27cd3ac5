"""Finds the outcome of a job whose events do not arrive: slow and exact, for the rare case.

A live event can be lost with the connection, a Result can expire unseen, and an id may never have existed.
"""

from collections.abc import Awaitable
from typing import TypeVar

from mesh.broker.broker import Broker
from mesh.broker.stores.journal import events_of
from mesh.client.control_api import ControlApi, read_refusal
from mesh.errors import BrokerTimeoutError, ResultNotFoundError, UnauthorizedError, UnavailableError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import STATUSES, JobStatus, Result
from mesh.protocol.version import OWN_BLOCK

STATUS_S = 5.0  # for a worker to say where a job stands
TRY_S = 3.0  # for one worker to answer; one that was just suspended never does, and the next question goes to another

QUEUED, UNKNOWN = "queued", "unknown"  # the answers of `status` beside the status of a Result
_ALIVE = (QUEUED, "running")
_OVER = (UNKNOWN, *STATUSES)

T = TypeVar("T")


class Lookup:
    """Asks the queue, the workers, the store and the journal of one tenant's jobs."""

    def __init__(self, broker: Broker, tenant: str, control_api: ControlApi) -> None:
        self._clock = broker.clock
        self._connection = broker.connection
        self._names = broker.names
        self._tenant = tenant
        self._control_api = control_api
        self._queue = broker.queue
        self._journal = broker.journal
        self._store = broker.results

    async def ask(self, job: str, sequence: int = 0) -> Result | None:
        """The Result of a job that ended; None: it waits or runs.

        The request is looked up first, because a Result is stored before its request leaves the queue. So a job that
        ends meanwhile is found by its Result.

        Args:
            sequence: of the stored request, 0 if that is not known.

        Raises:
            ResultNotFoundError: there is no such job, or its Result is kept no longer.
            MeshError: NATS did not answer; ask again.
        """
        is_told = self._control_api.is_needed  # a worker says all there is to know of the queue
        if sequence and not is_told and await _if_allowed(self._queue.get(sequence)) is not None:
            return None
        status = await self._status(job)
        if status in _ALIVE:
            return None
        result = await self.stored(job) or await self._announced(job)
        if result is not None:
            return result
        if status not in _OVER:
            return None  # a word of a later minor: it is known there, and has no Result
        raise ResultNotFoundError(
            f"job {job} is unknown: it never existed, or ended longer ago than its result_ttl_ms; "
            "is the id right, and the tenant?"
        )

    async def _announced(self, job: str) -> Result | None:
        """The Result with which the job's journal ends."""
        if self._control_api.is_needed:
            events = events_of(await self._control_api.read_journal(job))
            return events[-1] if events and isinstance(events[-1], Result) else None
        last = await _if_allowed(self._journal.last(self._journal.subject(JobKey(self._tenant, job))))
        return last.event if last is not None and isinstance(last.event, Result) else None

    async def stored(self, job: str) -> Result | None:
        """The job's Result, also one that was written a moment ago; None: it has none, or none that is kept.

        Raises:
            MeshError: NATS did not answer.
        """
        try:
            if self._control_api.is_needed:  # a tenant's account may not ask the leader; a worker does for it
                return await self._control_api.output(job)
            stored = await self._store.get_written(JobKey(self._tenant, job))
        except ResultNotFoundError:
            return None
        except (UnauthorizedError, UnavailableError):
            stored = await self._store.get(JobKey(self._tenant, job))
        return stored.result if stored is not None else None

    async def _status(self, job: str) -> str:
        """Where the job stands, by what the workers say; by the queue itself where there are none."""
        try:
            return (await self.status(job, STATUS_S)).status
        except UnavailableError:
            if self._control_api.is_needed:
                raise  # it cannot be told: the queue is not ours to read
            return QUEUED if await self._queue.find(JobKey(self._tenant, job)) is not None else UNKNOWN

    async def status(self, job: str, timeout_s: float) -> JobStatus:
        """Where the job stands, as a worker says.

        Raises:
            UnavailableError: no worker is there, or it refused. BrokerError: no answer.
            VersionError: the mesh speaks another major version of the protocol.
            ProtocolError: the answer is no status.
        """
        found = codec.decode_status(await self._steer("status", job, timeout_s))
        self._control_api.told(found.protocol)
        return found

    async def cancel(self, job: str, timeout_s: float) -> str:
        """The status of a job after a worker was asked to cancel it.

        Raises:
            As `status`.
        """
        return codec.decode_status(await self._steer("cancel", job, timeout_s)).status

    async def _steer(self, verb: str, job: str, timeout_s: float) -> bytes:
        """A worker's answer to `status` or `cancel`; asked again where none comes, which does no harm."""
        subject = self._names.control(self._tenant, verb, job)
        end_s = self._clock.monotonic_s() + timeout_s
        while True:
            left_s = end_s - self._clock.monotonic_s()
            try:
                header, payload = await self._connection.request(subject, b"", OWN_BLOCK, min(TRY_S, left_s))
                break
            except BrokerTimeoutError:
                if left_s <= TRY_S:
                    raise
            except UnavailableError:
                raise UnavailableError(
                    f"nobody answers {subject}: no worker is running; start one with `mesh worker`"
                ) from None
        refused = read_refusal(header, f"{verb} of job {job}")
        if refused is not None:
            raise refused
        return payload


async def _if_allowed(read: Awaitable[T | None]) -> T | None:
    """The result of `read`; None where this account may not read."""
    try:
        return await read
    except (UnauthorizedError, UnavailableError):
        return None
