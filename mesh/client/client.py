"""The asking end: submit requests, follow jobs, read Results.

    async with mesh.connect("nats://127.0.0.1:4222") as client:
        job = await client.submit("demo", "Tell me a story.")
        async for delta in job:
            print(delta.text, end="", flush=True)
        print((await job).usage)

Everything is bounded: a wait by the job's deadline, a reader by its inbox, a submit by its timeout.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.journal import Entry, OnEntry
from mesh.broker.transport.connection import connect as connect_broker
from mesh.broker.transport.mapping import NO_JETSTREAM
from mesh.broker.transport.options import ConnectOptions
from mesh.client.catalog import Catalog
from mesh.client.control_api import ControlApi
from mesh.client.job import Job
from mesh.client.lookup import Lookup
from mesh.client.poller import Poller
from mesh.client.requests import build_request
from mesh.client.submission import SentRequest, Submission
from mesh.clock import Clock
from mesh.errors import (
    BrokerTimeoutError,
    InvalidRequestError,
    MeshError,
    ResultNotFoundError,
    TooLargeError,
    TopologyError,
    UnauthorizedError,
    UnavailableError,
)
from mesh.job_key import JobKey
from mesh.policies.affinity import affinity_token
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, Presence, Request, Result
from mesh.protocol.subjects import DEFAULT_NAMESPACE, Names, check_tier, check_token
from mesh.protocol.timing import RESULT_MARGIN_S
from mesh.telemetry import client_tracing

DEFAULT_URL = "nats://127.0.0.1:4222"
SUBMIT_S = 10.0
READ_S = 5.0
HEADER_ROOM_BYTES = 1024


class Client:
    """See the module's docstring. Made by `connect`."""

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
        """Open a client on a connection; its `watch` is to be run.

        Args:
            where: the servers' addresses, for messages.
            catalog: one that several clients share.
            is_confined: JetStream tells this user nothing, see client/control_api.
            has_neighbours: others publish to this mesh who may use our message ids before we do.
        """
        self._clock = broker.clock
        self._connection = broker.connection
        self._names = broker.names
        self._tenant = tenant
        self._encoding: Encoding = encoding
        self._where = where
        self._has_neighbours = has_neighbours or is_confined
        self._store = broker.results
        self._presence = broker.workers
        self._control_api = ControlApi(broker, tenant, is_confined)
        self._catalog = catalog or Catalog(broker, self._control_api)
        self._submission = Submission(broker, tenant)
        self._lookup = Lookup(broker, tenant, self._control_api)
        self.watch = Poller(broker, tenant, self._lookup)
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Client of {self._tenant}, {len(self.watch)} jobs open, {self._connection!r}>"

    async def submit(
        self,
        model: str,
        prompt: str | Sequence[dict[str, str]] | Request | None = None,
        *,
        tier: str = "standard",
        traceparent: str = "",
        timeout: float = SUBMIT_S,
        on_entry: OnEntry | None = None,
        **fields: Any,
    ) -> Job:
        """Store a request in the queue; from then on it is a job that ends exactly once, whoever dies.

        An `id` makes it safe to submit the same request again, from anywhere and at any time while its Result is
        kept: it runs once, and every handle gets the one answer.

        Args:
            model: the name it is served under.
            prompt: text, a list of chat messages, or a whole `Request`.
            tier: `interactive`, `standard` or `batch`.
            traceparent: W3C's, of the span that asks; where OpenTelemetry is set up, the one that is open here counts.
            timeout: seconds to get it stored.
            on_entry: called with each event as the journal has it, and the sequence of the one before; for those who
                pass events on. Must not block.
            fields: any other field of `Request`, e.g. `max_tokens=64`, `temperature=0`, `id="job-1"`.

        Raises:
            InvalidRequestError, UnsupportedError, TooLargeError, ModelNotFoundError: before anything is sent; and
                InvalidRequestError with field `id` if that id was submitted before and asks for something else.
            QuotaExceededError: the queue is full.
            ResultNotFoundError: the id was submitted before, and its Result is kept no longer.
            BrokerError: not stored within `timeout`, as far as is known; submit again with the same `id` is safe.
        """
        check_token("model", model)
        check_tier(tier)
        request = build_request(prompt, fields)
        is_named = request.id is not None
        if request.id is None:
            request = msgspec.structs.replace(request, id=new_job_id())
        assert request.id is not None
        deadline_s = self._loop.time() + timeout
        await self._catalog.check(model, request, timeout / 2)
        asked = SentRequest(request.id, model, codec.encode(request, self._encoding), self._encoding)
        room_bytes = self._connection.max_payload - HEADER_ROOM_BYTES
        if len(asked.body) > room_bytes:
            raise TooLargeError(f"the request has {len(asked.body)} bytes; this NATS takes {room_bytes}")
        subject = self._names.request(model, tier, self._tenant, affinity_token(request))
        job = self.watch.open(self, request.id, _bound_of(request, self._clock), is_new=True, on_entry=on_entry)
        job.trace = trace = client_tracing.begin(request, model, tier, self._tenant, traceparent)
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
            job.on_other = lambda sequence: self.watch.spawn(self._compare(job, asked, sequence), f"mesh-twin-{job.id}")
            self.watch.look(job)  # longer ago than NATS remembers ids, it may have ended
        job.stored(ack.seq)
        return job

    async def generate(
        self,
        model: str,
        prompt: str | Sequence[dict[str, str]] | Request | None = None,
        *,
        timeout: float | None = None,
        **fields: Any,
    ) -> Result:
        """Submit and await the Result; takes what `submit` takes. Events are not streamed unless `stream=True`.

        Args:
            timeout: seconds for all of it; without it, until a little after the job's deadline.

        Raises:
            As `submit`, and WaitTimeoutError: no Result by then; the job goes on.
        """
        if not isinstance(prompt, Request):
            fields.setdefault("stream", False)
        if timeout is None:
            return await (await self.submit(model, prompt, **fields))
        end_s = self._loop.time() + timeout
        job = await self.submit(model, prompt, timeout=timeout, **fields)
        return await job.result(max(0.0, end_s - self._loop.time()))

    async def embed(self, model: str, input: str | Sequence[str], **fields: Any) -> list[list[float]]:
        """The vectors of one or more strings, in order; takes what `generate` takes.

        Raises:
            As `generate`, and JobError if the job does not finish.
        """
        given = input if isinstance(input, str) else list(input)
        result = (await self.generate(model, input=given, **fields)).raise_for_status()
        return result.embeddings if isinstance(result.embeddings, list) else []

    def job(self, id: str, *, index: int = 0, timeout: float = DEFAULT_DEADLINE_MS / 1000 + RESULT_MARGIN_S) -> Job:
        """The handle of a job by its id, submitted by anybody of this tenant: its journal, then live.

        Args:
            index: output tokens its reader has had, to go on after them: the last delta's `index` and the number of
                its `token_ids`. Where that cannot be, a `Restarted` comes first, and all of the output after it.
            timeout: seconds after which waits on this handle end.
        """
        check_token("id", id)
        if index < 0:
            raise ValueError(f"index={index} is not the number of tokens a reader has had")
        job = self.watch.open(self, id, timeout, is_new=False, index=index)
        self.watch.look(job)  # at once: it may have ended long ago
        return job

    async def result(self, id: str, *, timeout: float = READ_S) -> Result:
        """The Result of a job that has ended.

        Args:
            timeout: seconds for NATS to answer.

        Raises:
            ResultNotFoundError: it has none (yet), or it is kept no longer.
            BrokerError: NATS did not answer.
        """
        check_token("id", id)
        stored = await self._store.get(JobKey(self._tenant, id), timeout)
        if stored is None:
            raise ResultNotFoundError(
                f"job {id} has no Result: it has not ended, never existed, or ended longer ago than its result_ttl_ms"
            )
        return await self.load_result(stored.result)

    async def workers(self, *, timeout: float = READ_S) -> list[Presence]:
        """The workers alive.

        Args:
            timeout: seconds for NATS to answer.

        Raises:
            BrokerError: it did not.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._presence.all()
        except TimeoutError:
            raise BrokerTimeoutError(f"NATS at {self._where} did not say within {timeout:g} s who is alive") from None

    # For Job.

    async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]:
        """Events of one of our jobs from the journal."""
        return await self._control_api.read_journal(job, after, limit)

    async def load_result(self, result: Result) -> Result:
        """The whole Result, where it was too large for a message; as `Relay.whole`."""
        return await self._control_api.whole(result)

    async def cancel_job(self, job: str, timeout_s: float) -> str:
        answer = await self._lookup.steer("cancel", job, timeout_s)
        return str(answer.get("status", "unknown"))

    async def job_status(self, job: str, timeout_s: float) -> dict[str, Any]:
        return await self._lookup.status(job, timeout_s)

    def outlook(self) -> str:
        """What a wait that ended says of what comes next."""
        if self._connection.is_connected:
            return "it goes on, and `client.job(id)` finds it again"
        return f"NATS at {self._where} is away: once it is back the job goes on, and `client.job(id)` finds it again"

    def forget(self, job: Job) -> None:
        self.watch.forget(job)

    # An id that was submitted before.

    async def _join_first(self, job: Job, asked: SentRequest, sequence: int, deadline_s: float) -> bool:
        """NATS has that id already: the handle becomes one of the first request, if that asks for the same.

        False: it was somebody else's request that bore our id, and there is no job of ours.

        The Result is looked for in any case: it may have been announced before we listened, while its request is
        still in the queue, or still said to run.

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
                        job.bound(_bound_of(first.request, self._clock))
                    job.is_doubtful = False
                result = await self._lookup.stored(job.id)
                if result is None and first is None:
                    result = await self._lookup.ask(job.id)
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

    async def _compare(self, job: Job, asked: SentRequest, sequence: int) -> None:
        """Another stored request is served under the job's id: a reader of ours must not get its output unasked."""
        first = await self._submission.first_of(job.id, sequence)
        if first is None or first.sequence == job.sequence:
            return
        try:
            asked.check_same(first)
        except InvalidRequestError as error:
            job.failed(error)


@contextlib.asynccontextmanager
async def connect(
    servers: str | Sequence[str] = DEFAULT_URL,
    *,
    tenant: str = "default",
    namespace: str = DEFAULT_NAMESPACE,
    encoding: Encoding = "json",
    options: ConnectOptions | None = None,
    timeout: float | None = None,
) -> AsyncIterator[Client]:
    """A client for as long as the context lasts. Leaving it does not touch the jobs.

    Args:
        servers: one address or several of one cluster.
        tenant: whose jobs these are; `default` in a mesh of one tenant.
        encoding: of requests, and so of everything sent back about them: `json` or `msgpack`.
        options: credentials and more; its `servers` are used in place of the first argument.
        timeout: seconds for NATS to answer at all; 5 unless `options` say otherwise.

    Raises:
        DisconnectedError: no NATS there. UnauthorizedError: it refused us.
        TopologyError: no mesh on it; in a tenant's account the first request tells.
    """
    check_token("tenant", tenant)
    names = Names(namespace)
    if options is None:
        urls = (servers,) if isinstance(servers, str) else tuple(servers)
        options = ConnectOptions(servers=urls, name="mesh-client")
    if timeout is not None:
        options = replace(options, connect_timeout_s=timeout)
    async with connect_broker(options) as connection:
        is_confined = False
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                await topology.read_settings(Broker(connection, names))
        except (UnauthorizedError, UnavailableError):  # a tenant's account has no JetStream
            is_confined = True
        except TopologyError as error:
            if error.err_code not in NO_JETSTREAM:
                raise
            is_confined = True
        except (BrokerTimeoutError, TimeoutError):
            pass  # whoever asks something of it will hear
        client = Client(Broker(connection, names), tenant, encoding, options.shown, is_confined=is_confined)
        unlisten = connection.listen(client.watch.connection_changed)
        watch = asyncio.create_task(client.watch.run(), name="mesh-client-watch")
        try:
            yield client
        finally:
            unlisten()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await client.watch.close()


def _bound_of(request: Request, clock: Clock) -> float:
    """How long to wait for the request's Result, in seconds from now."""
    deadline_ms = request.deadline_unix_ms
    left_ms = DEFAULT_DEADLINE_MS if deadline_ms is None else max(0, deadline_ms - clock.server_unix_ms())
    return left_ms / 1000 + RESULT_MARGIN_S


def new_job_id() -> str:
    """An id nobody can guess: `j` and 128 random bits."""
    return f"j{secrets.token_hex(16)}"
