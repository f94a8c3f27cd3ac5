"""The asking end: submit requests, follow jobs, read Results.

    async with mesh.connect("nats://127.0.0.1:4222") as client:
        job = await client.submit("demo", "Tell me a story.")
        async for delta in job:
            print(delta.text, end="", flush=True)
        print((await job).usage)

The work is done in client/_core; this is what programs may call.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Unpack

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import connect as connect_broker
from mesh.broker.transport.mapping import NO_JETSTREAM
from mesh.broker.transport.options import ConnectOptions
from mesh.client._core import FOLLOW_S, READ_S, SUBMIT_S, ClientCore
from mesh.client.job import Job
from mesh.client.request_fields import JobFields, Messages, RequestFields
from mesh.client.requests import build_request
from mesh.errors import BrokerTimeoutError, TopologyError, UnauthorizedError, UnavailableError
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Presence, Request, Result, Tier
from mesh.protocol.subjects import DEFAULT_NAMESPACE, Names, check_token
from mesh.protocol.version import ProtocolVersion

DEFAULT_URL = "nats://127.0.0.1:4222"


class Client:
    """One tenant's client of a mesh. Made by `mesh.connect`."""

    def __init__(self, core: ClientCore, resources: contextlib.AsyncExitStack) -> None:
        """`resources`: closed with the client."""
        self._core = core
        self._resources = resources
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return repr(self._core)

    @property
    def protocol(self) -> str | None:
        """The protocol that the mesh speaks, such as "1.0"; None until it says so: in a tenant's account, an answer."""
        return self._core.protocol

    async def submit(
        self,
        model: str,
        prompt: str | Messages | Request | None = None,
        *,
        tier: Tier = "standard",
        traceparent: str = "",
        timeout: float = SUBMIT_S,
        **fields: Unpack[RequestFields],
    ) -> Job:
        """Store a request in the queue; from then on it is a job that ends exactly once, also if processes die.

        An `id` makes it safe to submit the same request again, from anywhere and at any time while its Result is
        kept: it runs once, and every handle gets the one answer.

        Args:
            model: the name it is served under.
            prompt: text, a list of chat messages, or a whole `Request`.
            tier: `interactive`, `standard` or `batch`.
            traceparent: W3C's, of the span that asks; where OpenTelemetry is set up, the one that is open here counts.
            timeout: seconds to get it stored.
            fields: any other field of `Request`, e.g. `max_tokens=64`, `temperature=0`, `id="job-1"`.

        Raises:
            InvalidRequestError, UnsupportedError, TooLargeError, ModelNotFoundError: before anything is sent; and
                InvalidRequestError with field `id` if that id was submitted before and asks for something else.
            QuotaExceededError: the queue is full.
            ResultNotFoundError: the id was submitted before, and its Result is kept no longer.
            BrokerError: not stored within `timeout`, as far as is known; submit again with the same `id` is safe.
        """
        request = build_request(prompt, fields)
        return Job(await self._core.submit(model, request, tier=tier, traceparent=traceparent, timeout_s=timeout))

    async def generate(
        self,
        model: str,
        prompt: str | Messages | Request | None = None,
        *,
        tier: Tier = "standard",
        traceparent: str = "",
        timeout: float | None = None,
        **fields: Unpack[RequestFields],
    ) -> Result:
        """Submit and await the Result. Events are not streamed unless `stream=True`.

        Args:
            model: the name it is served under.
            prompt: text, a list of chat messages, or a whole `Request`.
            tier: `interactive`, `standard` or `batch`.
            traceparent: W3C's, as for `submit`.
            timeout: seconds for all of it; without it, until a little after the job's deadline.
            fields: any other field of `Request`.

        Raises:
            As `submit`, and WaitTimeoutError: no Result by then; the job goes on.
        """
        if not isinstance(prompt, Request):
            fields.setdefault("stream", False)
        end_s = None if timeout is None else asyncio.get_running_loop().time() + timeout
        submit_s = SUBMIT_S if timeout is None else timeout
        job = await self.submit(model, prompt, tier=tier, traceparent=traceparent, timeout=submit_s, **fields)
        return await job.result(None if end_s is None else max(0.0, end_s - asyncio.get_running_loop().time()))

    async def embed(
        self,
        model: str,
        input: str | Sequence[str],
        *,
        tier: Tier = "standard",
        traceparent: str = "",
        timeout: float | None = None,
        **fields: Unpack[JobFields],
    ) -> list[list[float]]:
        """The vectors of one or more strings, one for each in their order, all of one length.

        Args:
            model: the name it is served under.
            input: one string, or n >= 1 of them.
            tier: `interactive`, `standard` or `batch`.
            traceparent: W3C's, as for `submit`.
            timeout: seconds for all of it; without it, until a little after the job's deadline.
            fields: those fields of `Request` that an embedding has, e.g. `session="s"`, `metadata={"k": 1}`.

        Raises:
            As `generate`, and JobError if the job does not finish.
        """
        given = input if isinstance(input, str) else list(input)
        result = await self.generate(model, tier=tier, traceparent=traceparent, timeout=timeout, input=given, **fields)
        return result.raise_for_status().embeddings or []

    def job(self, id: str, *, index: int = 0, timeout: float = FOLLOW_S) -> Job:
        """The handle of a job by its id, submitted by anybody of this tenant: its journal, then live.

        Args:
            index: output tokens its reader has had, to go on after them: the last delta's `index` and the number of
                its `token_ids`. Where that cannot be, a `Restarted` comes first, and all of the output after it.
            timeout: seconds after which waits on this handle end.

        Raises:
            InvalidRequestError: `id` cannot be the id of a job. ValueError: `index` is negative.
        """
        return Job(self._core.open(id, index, timeout))

    async def result(self, id: str, *, timeout: float = READ_S) -> Result:
        """The Result of a job that has ended.

        Args:
            timeout: seconds for NATS to answer.

        Raises:
            ResultNotFoundError: it has none (yet), or it is kept no longer.
            BrokerError: NATS did not answer.
        """
        return await self._core.result(id, timeout)

    async def workers(self, *, timeout: float = READ_S) -> list[Presence]:
        """The workers alive.

        Args:
            timeout: seconds for NATS to answer.

        Raises:
            BrokerError: it did not.
        """
        return await self._core.workers(timeout)

    async def aclose(self) -> None:
        """Close the client and its connection; its jobs go on. Idempotent; leaving `async with` does it.

        Waits that are under way end with DisconnectedError, and so does each later call. Cancelled, the closing goes
        on by itself.
        """
        if self._closing is None:
            closing = self._resources.aclose()
            self._closing = asyncio.get_running_loop().create_task(closing, name="mesh-client-close")
        await asyncio.shield(self._closing)


class Connecting:
    """A client that is still to be opened: `async with` closes it too; with `await`, `aclose` is the program's to call.

    async with mesh.connect() as client: ...

    client = await mesh.connect()
    try: ...
    finally: await client.aclose()
    """

    def __init__(self, open_client: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        self._open_client = open_client
        self._opened: list[Client] = []  # by `async with`, the innermost last

    def __await__(self) -> Generator[Any, None, Client]:
        return self._open_client().__await__()

    async def __aenter__(self) -> Client:
        client = await self._open_client()
        self._opened.append(client)
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._opened.pop().aclose()


def connect(
    servers: str | Sequence[str] = DEFAULT_URL,
    *,
    tenant: str = "default",
    namespace: str = DEFAULT_NAMESPACE,
    encoding: Encoding = "json",
    options: ConnectOptions | None = None,
    timeout: float | None = None,
) -> Connecting:
    """A client, for `async with` or for `await`. Closing it does not touch the jobs.

    Args:
        servers: one address or several of one cluster.
        tenant: whose jobs these are; `default` in a mesh of one tenant.
        encoding: of requests, and so of everything sent back about them: `json` or `msgpack`.
        options: credentials and more; its `servers` are used in place of the first argument.
        timeout: seconds for NATS to answer at all; 5 unless `options` say otherwise.

    Raises:
        DisconnectedError: no NATS there. UnauthorizedError: it refused us.
        TopologyError: no mesh on it; in a tenant's account the first request tells.
        VersionError: it speaks another major version of the protocol; in a tenant's account an answer tells.
    """
    if options is None:
        urls = (servers,) if isinstance(servers, str) else tuple(servers)
        options = ConnectOptions(servers=urls, name="mesh-client")
    if timeout is not None:
        options = replace(options, connect_timeout_s=timeout)
    chosen = options
    return Connecting(lambda: _open(chosen, tenant, namespace, encoding))


async def _open(options: ConnectOptions, tenant: str, namespace: str, encoding: Encoding) -> Client:
    check_token("tenant", tenant)
    names = Names(namespace)
    async with contextlib.AsyncExitStack() as resources:
        connection = await resources.enter_async_context(connect_broker(options))
        broker = Broker(connection, names)
        is_confined, protocol = await _read_mesh(broker, options.connect_timeout_s)
        core = ClientCore(broker, tenant, encoding, options.shown, is_confined=is_confined)
        core.told(protocol)
        resources.push_async_callback(core.close)
        resources.push_async_callback(_end, asyncio.create_task(core.poller.run(), name="mesh-client-poller"))
        resources.callback(connection.listen(core.poller.connection_changed))
        return Client(core, resources.pop_all())


async def _read_mesh(broker: Broker, timeout_s: float) -> tuple[bool, ProtocolVersion | None]:
    """Whether JetStream tells this user nothing, and which protocol the mesh speaks, if that was told.

    Raises:
        TopologyError: there is no mesh.
        VersionError: it speaks another major version of the protocol.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return False, (await topology.read_settings(broker)).protocol
    except (UnauthorizedError, UnavailableError):  # a tenant's account has no JetStream
        return True, None
    except TopologyError as error:
        if error.err_code not in NO_JETSTREAM:
            raise
        return True, None
    except (BrokerTimeoutError, TimeoutError):
        return False, None  # the first call will tell


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
