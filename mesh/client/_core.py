"""The client at work: stores requests, opens handles, asks about jobs. Behind `Client`, and behind the front door.

Private to the client. Programs see client/client; other rooms of the mesh come here by client/internal.
Everything is bounded: a wait by the job's deadline, a reader by its inbox, a submit by its timeout.
"""

import asyncio
import secrets

import msgspec

from mesh.broker.broker import Broker
from mesh.broker.stores.journal import Entry, OnEntry
from mesh.client._job_state import JobHandle
from mesh.client.catalog import Catalog
from mesh.client.control_api import ControlApi
from mesh.client.lookup import Lookup
from mesh.client.poller import Poller
from mesh.client.submission import SentRequest, Submission
from mesh.errors import (
    BrokerTimeoutError,
    DisconnectedError,
    InvalidRequestError,
    MeshError,
    ResultNotFoundError,
    TooLargeError,
)
from mesh.job_key import JobKey
from mesh.policies.affinity import affinity_token
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, JobStatus, Presence, Request, Result
from mesh.protocol.subjects import check_tier, check_token
from mesh.protocol.timing import RESULT_MARGIN_S
from mesh.protocol.version import ProtocolVersion
from mesh.telemetry import client_tracing

SUBMIT_S = 10.0
FOLLOW_S = DEFAULT_DEADLINE_MS / 1000 + RESULT_MARGIN_S  # of a job by its id, whose deadline is not known
READ_S = 5.0
HEADER_ROOM_BYTES = 1024

CLOSED = "this client is closed; its jobs go on, and `client.job(id)` of a new one finds them"


class ClientCore:
    """One tenant's client on a connection that somebody else opens and closes."""

    margin_s = RESULT_MARGIN_S

    def __init__(
        self,
        broker: Broker,
        tenant: str,
        encoding: Encoding,
        where: str,
        catalog: Catalog | None = None,
        is_confined: bool = False,
        has_neighbours: bool = False,
    ) -> None:
        """Open a client on a connection; its `poller` is to be run.

        Args:
            where: the servers' addresses, for messages.
            catalog: one that several clients share.
            is_confined: JetStream tells this user nothing, see client/control_api.
            has_neighbours: others publish to this mesh who may use our message ids before we do.
        """
        self.connection = broker.connection
        self._clock = broker.clock
        self.tenant = tenant
        self._names = broker.names
        self._encoding: Encoding = encoding
        self._where = where
        self._has_neighbours = has_neighbours or is_confined
        self._store = broker.results
        self._presence = broker.workers
        self._control_api = ControlApi(broker, tenant, is_confined)
        self._catalog = catalog or Catalog(broker, self._control_api)
        self._submission = Submission(broker, tenant)
        self.lookup = Lookup(broker, tenant, self._control_api)
        self.poller = Poller(broker, tenant, self.lookup)
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self.poller)} jobs open"
        return f"<Client of {self.tenant}, {state}, {self.connection!r}>"

    @property
    def protocol(self) -> str | None:
        """As `Client.protocol`."""
        found = self._control_api.protocol
        return str(found) if found is not None else None

    def told(self, protocol: ProtocolVersion | None) -> None:
        """The mesh's settings name the protocol that it speaks; None: they could not be read."""
        self._control_api.protocol = protocol

    async def close(self) -> None:
        """End every wait on every handle, and refuse all later calls. Idempotent."""
        self._is_closed = True
        await self.poller.close()

    async def submit(
        self,
        model: str,
        request: Request,
        *,
        tier: str = "standard",
        traceparent: str = "",
        timeout_s: float = SUBMIT_S,
        on_entry: OnEntry | None = None,
    ) -> JobHandle:
        """Store a checked request in the queue, as `Client.submit`.

        Args:
            request: as `requests.build_request` returns one, or as decoded and validated by somebody else.
            on_entry: called with each event as the journal has it, and the sequence of the one before; for those who
                pass events on. Must not block.

        Raises:
            As `Client.submit`, save for what is wrong with the request itself.
        """
        self._check_open()
        check_token("model", model)
        check_tier(tier)
        is_named = request.id is not None
        job_id = request.id or new_job_id()
        if not is_named:
            request = msgspec.structs.replace(request, id=job_id)
        deadline_s = self._loop.time() + timeout_s
        await self._catalog.check(model, request, timeout_s / 2)
        asked = SentRequest(job_id, model, codec.encode(request, self._encoding), self._encoding)
        room_bytes = self.connection.max_payload - HEADER_ROOM_BYTES
        if len(asked.body) > room_bytes:
            raise TooLargeError(f"the request has {len(asked.body)} bytes; this NATS takes {room_bytes}")
        subject = self._names.request(model, tier, self.tenant, affinity_token(request))
        job = self.poller.open(self, job_id, self._bound_of(request), is_new=True, on_entry=on_entry)
        job.model = model
        job.trace = trace = client_tracing.begin(request, model, tier, self.tenant, traceparent)
        traceparent = trace.traceparent if trace is not None else traceparent
        try:
            ack = await self._submission.store(subject, asked, traceparent, deadline_s)
            if ack.duplicate and not await self._join_first(job, asked, ack.seq, deadline_s):
                mark = f".{secrets.token_hex(8)}"
                ack = await self._submission.store(subject, asked, traceparent, deadline_s, mark)
        except BaseException:
            job.close()
            raise
        if is_named and not ack.duplicate:
            job.on_other = lambda sequence: self.poller.spawn(
                self._compare(job, asked, sequence), f"mesh-twin-{job.id}"
            )
            self.poller.look(job)  # longer ago than NATS remembers ids, it may have ended
        job.stored(ack.seq)
        return job

    def open(self, id: str, index: int = 0, timeout_s: float = FOLLOW_S) -> JobHandle:
        """A handle of a job by its id, as `Client.job`."""
        self._check_open()
        check_token("id", id)
        if index < 0:
            raise ValueError(f"index={index} is not the number of tokens a reader has had")
        job = self.poller.open(self, id, timeout_s, is_new=False, index=index)
        self.poller.look(job)  # at once: it may have ended long ago
        return job

    async def result(self, id: str, timeout_s: float = READ_S) -> Result:
        """The Result of a job that has ended, as `Client.result`."""
        self._check_open()
        check_token("id", id)
        stored = await self._store.get(JobKey(self.tenant, id), timeout_s)
        if stored is None:
            raise ResultNotFoundError(
                f"job {id} has no Result: it has not ended, never existed, or ended longer ago than its result_ttl_ms"
            )
        return await self.load_result(stored.result)

    async def workers(self, timeout_s: float = READ_S) -> list[Presence]:
        """The workers alive, as `Client.workers`."""
        self._check_open()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._presence.all()
        except TimeoutError:
            raise BrokerTimeoutError(f"NATS at {self._where} did not say within {timeout_s:g} s who is alive") from None

    # For handles.

    async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]:
        """Events of one of our jobs from the journal."""
        return await self._control_api.read_journal(job, after, limit)

    async def load_result(self, result: Result) -> Result:
        """The whole Result, where it was too large for a message; as `ControlApi.whole`."""
        return await self._control_api.whole(result)

    async def cancel_job(self, job: str, timeout_s: float) -> str:
        """Ask for a job to stop, as `Job.cancel`."""
        self._check_open()
        return await self.lookup.cancel(job, timeout_s)

    async def job_status(self, job: str, timeout_s: float) -> JobStatus:
        """Where a job stands, as `Job.status`."""
        self._check_open()
        return await self.lookup.status(job, timeout_s)

    def outlook(self) -> str:
        """The end of a wait's message: how the job goes on."""
        if self.connection.is_connected:
            return "it goes on, and `client.job(id)` finds it again"
        return f"NATS at {self._where} is away: once it is back the job goes on, and `client.job(id)` finds it again"

    def forget(self, job: JobHandle) -> None:
        """The handle is closed."""
        self.poller.forget(job)

    def _bound_of(self, request: Request) -> float:
        """How long to wait for the request's Result, in seconds from now."""
        deadline_ms = request.deadline_unix_ms
        left_ms = DEFAULT_DEADLINE_MS if deadline_ms is None else max(0, deadline_ms - self._clock.server_unix_ms())
        return left_ms / 1000 + self.margin_s

    def _check_open(self) -> None:
        if self._is_closed:
            raise DisconnectedError(CLOSED)

    # An id that was submitted before.

    async def _join_first(self, job: JobHandle, asked: SentRequest, sequence: int, deadline_s: float) -> bool:
        """NATS has that id already: the handle becomes one of the first request, if that asks for the same.

        False: it was somebody else's request that bore our id, and there is no job of ours.

        The Result is read in any case: it may have been announced before this client subscribed. Its request may
        then still be in the queue, or its status may still be `running`.

        Raises:
            InvalidRequestError, ResultNotFoundError: as `submit`.
        """
        job.is_joined = True
        job.missed()
        try:
            async with asyncio.timeout_at(deadline_s):
                first = None if self._control_api.is_needed else await self._submission.first_of(job.id, sequence)
                if first is not None and self._submission.is_foreign(first, job.id):
                    job.is_joined = False
                    return False
                if first is not None:
                    asked.check_same(first)
                    if first.request is not None:
                        job.bound(self._bound_of(first.request))
                    job.is_doubtful = False
                result = await self.lookup.stored(job.id)
                if result is None and first is None:
                    result = await self.lookup.ask(job.id)
        except InvalidRequestError:
            raise
        except ResultNotFoundError:
            if not self._has_neighbours:
                raise
            job.is_joined = False
            return False
        except (MeshError, TimeoutError):
            return True  # it cannot be told: the first is kept, and the watch asks what became of it
        if result is not None:
            if first is None:
                asked.check_result(result)
            job.settled(result)
        return True

    async def _compare(self, job: JobHandle, asked: SentRequest, sequence: int) -> None:
        """Fail the handle if the stored request that is served under its id asks for something else."""
        first = await self._submission.first_of(job.id, sequence)
        if first is None or first.sequence == job.sequence:
            return
        try:
            asked.check_same(first)
        except InvalidRequestError as error:
            job.failed(error)


def new_job_id() -> str:
    """An id nobody can guess: `j` and 128 random bits."""
    return f"j{secrets.token_hex(16)}"
