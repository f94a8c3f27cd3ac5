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
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.broker.connection import connect as connect_broker
from mesh.broker.journal import Entry, Journal
from mesh.broker.options import ConnectOptions
from mesh.broker.queue import RequestQueue
from mesh.broker.store import PresenceStore, ResultStore, Stored
from mesh.client.job import Job
from mesh.client.requests import build_request, check_limits
from mesh.errors import (
    BrokerError,
    BrokerTimeoutError,
    DisconnectedError,
    MeshError,
    ModelNotFoundError,
    ResultNotFoundError,
    TooLargeError,
    UnavailableError,
    WaitTimeoutError,
)
from mesh.policies.affinity import affinity_token
from mesh.protocol import codec, headers
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, Presence, Request, Result
from mesh.protocol.subjects import DEFAULT_NAMESPACE, Names, check_tier, check_token

log = logging.getLogger("mesh.client")

DEFAULT_URL = "nats://127.0.0.1:4222"
SUBMIT_TRY_S = 2.0  # one try; repeated with the same id, which cannot run twice
SUBMIT_PAUSE_S = 0.1
BOUND_MARGIN_S = 30.0  # past the deadline: for the mesh to notice it and to say so
WATCH_S = 1.0
QUIET_S = 2.0  # without an event for so long, look at the store; then ever less often
MAX_QUIET_S = 30.0
MODELS_FRESH_S = 10.0  # how long a look at the workers is good for
HEADER_ROOM_BYTES = 1024


class Client:
    """See the module's docstring. Made by `connect`."""

    def __init__(self, connection: Connection, names: Names, tenant: str, encoding: Encoding) -> None:
        self._connection = connection
        self._names = names
        self._tenant = tenant
        self._encoding: Encoding = encoding
        self._queue = RequestQueue(connection, names)
        self._journal = Journal(connection, names)
        self._store = ResultStore(connection, names)
        self._presence = PresenceStore(connection, names)
        self._jobs: dict[Job, None] = {}  # open handles, oldest first; several may be of one job
        self._known: set[str] = set()  # models whose queue exists
        self._limits: dict[str, int] = {}  # model to its longest context, of the workers last seen
        self._limits_s = float("-inf")
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Client of {self._tenant}, {len(self._jobs)} jobs open, {self._connection!r}>"

    async def submit(
        self,
        model: str,
        prompt: str | Sequence[dict[str, str]] | Request | None = None,
        *,
        tier: str = "standard",
        traceparent: str = "",
        timeout: float = 10.0,
        **fields: Any,
    ) -> Job:
        """Store a request in the queue; from then on it is a job that ends exactly once, whoever dies.

        Args:
            model: the name it is served under.
            prompt: text, a list of chat messages, or a whole `Request`.
            tier: `interactive`, `standard` or `batch`.
            timeout: seconds to get it stored.
            fields: any other field of `Request`, e.g. `max_tokens=64`, `temperature=0`, `id="job-1"`.

        Raises:
            InvalidRequestError, UnsupportedError, TooLargeError, ModelNotFoundError: before anything is sent.
            QuotaExceededError: the queue is full.
            BrokerError: not stored within `timeout`, as far as is known; submit again with the same `id` is safe.
        """
        check_token("model", model)
        check_tier(tier)
        request = build_request(prompt, fields)
        if request.id is None:
            request = msgspec.structs.replace(request, id=new_job_id())
        assert request.id is not None
        deadline = self._loop.time() + timeout
        await self._check_model(model, request, timeout)
        body = codec.encode(request, self._encoding)
        if len(body) + HEADER_ROOM_BYTES > self._connection.max_payload:
            raise TooLargeError(
                f"the request has {len(body)} bytes; this NATS takes {self._connection.max_payload - HEADER_ROOM_BYTES}"
            )
        job = self._open_job(request.id, self._bound_of(request), is_new=True)
        subject = self._names.request(model, tier, self._tenant, affinity_token(request))
        try:
            is_duplicate = await self._store_request(subject, body, request.id, traceparent, deadline)
        except BaseException:
            job.close()
            raise
        if is_duplicate:
            job.missed()
        return job

    async def generate(
        self, model: str, prompt: str | Sequence[dict[str, str]] | Request | None = None, **fields: Any
    ) -> Result:
        """Submit and await the Result; takes what `submit` takes. Events are not streamed unless `stream=True`."""
        if not isinstance(prompt, Request):
            fields.setdefault("stream", False)
        return await (await self.submit(model, prompt, **fields))

    async def embed(self, model: str, input: str | Sequence[str], **fields: Any) -> list[list[float]]:
        """The vectors of one or more strings, in order.

        Raises:
            As `submit`, and JobError if the job does not finish.
        """
        given = input if isinstance(input, str) else list(input)
        result = (await self.generate(model, input=given, **fields)).raise_for_status()
        return result.embeddings if isinstance(result.embeddings, list) else []

    def job(self, id: str, *, timeout: float = DEFAULT_DEADLINE_MS / 1000 + BOUND_MARGIN_S) -> Job:
        """The handle of a job by its id, submitted by anybody of this tenant: its journal, then live.

        Args:
            timeout: seconds after which waits on this handle end.
        """
        check_token("id", id)
        job = self._open_job(id, timeout, is_new=False)
        job.check_s = 0.0  # at once: it may have ended long ago
        self._look(job)
        return job

    async def result(self, id: str) -> Result:
        """The Result of a job that has ended.

        Raises:
            ResultNotFoundError: it has none (yet), or it is kept no longer.
        """
        check_token("id", id)
        stored = await self._store.get(self._tenant, id)
        if stored is None:
            raise ResultNotFoundError(
                f"job {id} has no Result: it has not ended, never existed, or ended longer ago than its result_ttl_ms"
            )
        return await self.load_result(stored.result)

    async def workers(self) -> list[Presence]:
        """The workers alive."""
        return await self._presence.all()

    # For Job.

    async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]:
        """Events of one of our jobs from the journal."""
        return await self._journal.read(self._journal.subject(self._tenant, job), after, limit)

    async def load_result(self, result: Result) -> Result:
        """The whole Result, where it was too large for a message."""
        if not isinstance(result.object, str):
            return result
        return codec.decode_result(await self._store.get_object(result.object))

    async def cancel_job(self, job: str, timeout_s: float) -> str:
        answer = await self._steer("cancel", job, timeout_s)
        return str(answer.get("status", "unknown"))

    async def job_status(self, job: str, timeout_s: float) -> dict[str, Any]:
        return await self._steer("status", job, timeout_s)

    def forget(self, job: Job) -> None:
        self._jobs.pop(job, None)

    async def _steer(self, verb: str, job: str, timeout_s: float) -> dict[str, Any]:
        subject = self._names.control(self._tenant, verb, job)
        try:
            header, payload = await self._connection.request(subject, timeout_s=timeout_s)
        except UnavailableError:
            raise UnavailableError(
                f"nobody answers {subject}: no worker is running; start one with `mesh worker`"
            ) from None
        refusal = headers.parse(header).get("Nats-Service-Error")
        if refusal is not None:
            raise UnavailableError(f"{verb} of job {job}: {refusal}")
        answer = codec.decode_json(payload)
        return answer if isinstance(answer, dict) else {}

    # Submitting.

    async def _store_request(self, subject: str, body: bytes, job: str, traceparent: str, deadline: float) -> bool:
        """Publish until it is surely stored; whether it was stored before."""
        message_id = f"{self._tenant}.{job}"
        while True:
            left_s = deadline - self._loop.time()
            try:
                ack = await self._queue.submit(
                    subject,
                    body,
                    message_id,
                    self._encoding,
                    traceparent,
                    max(0.1, min(SUBMIT_TRY_S, left_s)),
                )
            except (BrokerTimeoutError, DisconnectedError, UnavailableError):
                if self._loop.time() + SUBMIT_PAUSE_S >= deadline:
                    raise
                await asyncio.sleep(SUBMIT_PAUSE_S)  # the outcome is unknown, or NATS is away; the id makes it safe
            else:
                return ack.duplicate

    async def _check_model(self, model: str, request: Request, timeout_s: float) -> None:
        """Refuse a model nobody deployed, and what its workers say they cannot take."""
        try:
            async with asyncio.timeout(timeout_s / 2):
                await self._learn_of(model)
        except TimeoutError:
            return  # the mesh itself refuses what it cannot serve
        check_limits(request, self._limits.get(model, 0))

    async def _learn_of(self, model: str) -> None:
        if model not in self._known:
            try:
                exists = await topology.has_model(self._connection, self._names, model)
            except (BrokerTimeoutError, UnavailableError, DisconnectedError):
                return  # a tenant's account cannot ask; the mesh itself refuses
            if not exists:
                await self._look_at_workers()
                have = ", ".join(sorted(self._limits)) or "none"
                raise ModelNotFoundError(f"no model {model!r} is deployed; there are: {have}", field="model")
            self._known.add(model)
        if self._loop.time() - self._limits_s > MODELS_FRESH_S:
            await self._look_at_workers()

    async def _look_at_workers(self) -> None:
        self._limits_s = self._loop.time()
        try:
            workers = await self._presence.all()
        except BrokerError:
            return
        self._limits = {}
        for each in workers:
            longest = each.max_model_len or 1 << 40
            self._limits[each.model] = max(self._limits.get(each.model, 0), longest)

    def _bound_of(self, request: Request) -> float:
        deadline_ms = request.deadline_unix_ms
        left_ms = DEFAULT_DEADLINE_MS if deadline_ms is None else max(0, deadline_ms - time.time_ns() // 1_000_000)
        return left_ms / 1000 + BOUND_MARGIN_S

    # Watching.

    def _open_job(self, id: str, bound_s: float, is_new: bool) -> Job:
        job = Job(self, id, bound_s, is_new)
        job.attach(self._journal.subscribe(self._tenant, id, job.heard))
        job.check_s = self._loop.time() + QUIET_S
        self._jobs[job] = None
        return job

    async def watch(self) -> None:
        """Sees to it that no wait lasts for ever, and that a lost event is made good. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            now = self._loop.time()
            for job in list(self._jobs):
                if now >= job.bound_s:
                    job.failed(
                        WaitTimeoutError(
                            f"job {job.id} has no Result though its deadline has passed; is a worker alive? "
                            "(`mesh workers`)"
                        )
                    )
                elif now >= max(job.check_s, job.heard_s + QUIET_S):
                    self._look(job)

    def connection_changed(self, connected: bool) -> None:
        """Listener of the connection: after a loss, every job may have missed events."""
        if connected:
            for job in list(self._jobs):
                job.missed()
                self._look(job)

    def _look(self, job: Job) -> None:
        """Ask the store for the job's Result; the next look is twice as far away."""

        def found(stored: Stored) -> None:
            job.settled(stored.result)

        now = self._loop.time()
        job.check_s = now + min(MAX_QUIET_S, max(QUIET_S, 2 * (now - job.heard_s)))
        self._store.check(self._tenant, job.id, found)
        if job.is_doubtful:
            self._ask_whether_known(job)

    def _ask_whether_known(self, job: Job) -> None:
        """A job that nobody of ours submitted may not exist: say so, rather than wait for its Result."""

        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if error is None and payload:
                answer = codec.decode_json(payload)
                if isinstance(answer, dict) and answer.get("status") == "unknown" and job.is_doubtful:
                    reason = "it never existed, or ended longer ago than its result_ttl_ms"
                    job.failed(ResultNotFoundError(f"job {job.id} is unknown: {reason}"))

        subject = self._names.control(self._tenant, "status", job.id)
        with contextlib.suppress(MeshError):  # asked again with the next look
            self._connection.call(subject, b"", b"", answered)

    def close_jobs(self) -> None:
        """End every wait: the client is being closed."""
        for job in list(self._jobs):
            job.failed(DisconnectedError(f"the client was closed while job {job.id} was open; the job goes on"))


@contextlib.asynccontextmanager
async def connect(
    servers: str | Sequence[str] = DEFAULT_URL,
    *,
    tenant: str = "default",
    namespace: str = DEFAULT_NAMESPACE,
    encoding: Encoding = "json",
    options: ConnectOptions | None = None,
) -> AsyncIterator[Client]:
    """A client for as long as the context lasts. Leaving it does not touch the jobs.

    Args:
        servers: one address or several of one cluster.
        tenant: whose jobs these are; `default` in a mesh of one tenant.
        encoding: of requests, and so of everything sent back about them: `json` or `msgpack`.
        options: credentials, timeouts; its `servers` are used in place of the first argument.

    Raises:
        DisconnectedError: no NATS there. UnauthorizedError: it refused us.
        TopologyError: no mesh on it.
    """
    check_token("tenant", tenant)
    names = Names(namespace)
    if options is None:
        urls = (servers,) if isinstance(servers, str) else tuple(servers)
        options = ConnectOptions(servers=urls, name="mesh-client")
    async with connect_broker(options) as connection:
        with contextlib.suppress(UnavailableError, BrokerTimeoutError):  # a tenant's account cannot ask
            await topology.read_settings(connection, names)
        client = Client(connection, names, tenant, encoding)
        unlisten = connection.listen(client.connection_changed)
        watch = asyncio.create_task(client.watch(), name="mesh-client-watch")
        try:
            yield client
        finally:
            unlisten()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            client.close_jobs()


def new_job_id() -> str:
    """An id nobody can guess: `j` and 128 random bits."""
    return f"j{secrets.token_hex(16)}"
