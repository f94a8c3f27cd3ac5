"""The client for programs without an event loop: the same objects, driven from a thread of their own.

    with mesh.blocking.connect() as client:
        job = client.submit("demo", "Tell me a story.")
        for delta in job:
            print(delta.text, end="", flush=True)
        print(job.result().usage)

Every method may be called from every thread, but not from the client's own. A process that was forked after `connect`
makes a client of its own.
"""

from collections.abc import AsyncGenerator, Generator, Sequence
from types import TracebackType
from typing import Unpack

from mesh.broker.transport.options import ConnectOptions
from mesh.client import client as asynchronous
from mesh.client._core import FOLLOW_S, READ_S, SUBMIT_S
from mesh.client._loop_thread import LoopThread
from mesh.client.assembly import Restarted
from mesh.client.client import DEFAULT_URL, Client, Connecting
from mesh.client.job import Job
from mesh.client.request_fields import JobFields, Messages, RequestFields
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Delta, JobStatus, Presence, Request, Result, Tier
from mesh.protocol.subjects import DEFAULT_NAMESPACE


class BlockingJob:
    """One job of this client's tenant. Made by `BlockingClient.submit` and `BlockingClient.job`.

    for delta in job: print(delta.text)     # its output as it is made
    result = job.result()                   # its Result, with any status
    """

    def __init__(self, loop: LoopThread, job: Job) -> None:
        self._loop = loop
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def id(self) -> str:
        """Its id: `client.job(id)` finds it again, from any program of its tenant."""
        return self._job.id

    @property
    def tenant(self) -> str:
        """The tenant it belongs to."""
        return self._job.tenant

    @property
    def model(self) -> str | None:
        """The model it was submitted for; None: opened by its id, and its Result is not there yet."""
        return self._job.model

    @property
    def sequence(self) -> int:
        """The stream sequence of its stored request; 0: not known, as for a job opened by its id."""
        return self._job.sequence

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the job's Result, with any status; `raise_for_status()` on it turns failures into errors.

        Args:
            timeout: seconds; without it, until a little after the job's deadline.

        Raises:
            WaitTimeoutError: no Result by then. The job goes on; `client.job(id)` finds it again.
            ResultNotFoundError: the job is unknown, or its Result is kept no longer.
            InvalidRequestError: field `id`: another request of this id is served.
            DisconnectedError: the client was closed, or this process was forked after it connected.
        """
        return self._loop.run(self._job.result(timeout))

    def __iter__(self) -> Generator[Delta | Restarted, None, None]:
        """As `deltas`, without a `timeout`."""
        return self.deltas()

    def deltas(self, timeout: float | None = None) -> Generator[Delta | Restarted, None, None]:
        """The output as it is made: each token once, in order. Ends with the job, at any status.

        A `Restarted` among the deltas says that the output shown so far no longer stands. Iterating again goes on
        where the last iteration was left, also by an error.

        Args:
            timeout: seconds to wait for each delta; without it, until a little after the job's deadline.

        Raises:
            WaitTimeoutError, ResultNotFoundError, InvalidRequestError, DisconnectedError: as `result`.
            RuntimeError: another iteration of this handle began; `client.job(id)` makes a handle for each reader.
        """
        stream = self._job.deltas(timeout)
        try:
            while (shown := self._loop.run(_next(stream))) is not None:
                yield shown
        finally:
            # The garbage collector ends an iteration that was left, in any thread and at any moment: nothing may wait.
            self._loop.begin_nowait(lambda: _close(stream))

    def status(self, timeout: float = 10.0) -> JobStatus:
        """Where the job stands now, as a worker says.

        Args:
            timeout: seconds for a worker to answer.

        Raises:
            UnavailableError: no worker is there to say.
            BrokerTimeoutError: no answer within `timeout`.
        """
        return self._loop.run(self._job.status(timeout))

    def cancel(self, timeout: float = 10.0) -> str:
        """Ask for the job to stop. Returns its status: `cancelled`, or the one it already had, or `unknown`.

        Args:
            timeout: seconds for a worker to answer.

        Raises:
            UnavailableError: no worker is there to do it.
            BrokerTimeoutError: no answer within `timeout`; the job may or may not stop.
        """
        return self._loop.run(self._job.cancel(timeout))

    def close(self) -> None:
        """Hear no more of the job, which goes on. Idempotent; done by itself once the Result is there."""

        async def close() -> None:
            self._job.close()

        self._loop.begin_nowait(close)


class BlockingClient:
    """One tenant's client of a mesh, for programs without an event loop. Made by `mesh.blocking.connect`.

    Leaving its context closes it; so does `close`.
    """

    def __init__(self, loop: LoopThread, client: Client) -> None:
        self._loop = loop
        self._client = client

    def __repr__(self) -> str:
        return repr(self._client)

    def __enter__(self) -> "BlockingClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def protocol(self) -> str | None:
        """The protocol that the mesh speaks, such as "1.0"; None until it says so: in a tenant's account, an answer."""
        return self._client.protocol

    def submit(
        self,
        model: str,
        prompt: str | Messages | Request | None = None,
        *,
        tier: Tier = "standard",
        traceparent: str = "",
        timeout: float = SUBMIT_S,
        **fields: Unpack[RequestFields],
    ) -> BlockingJob:
        """Store a request in the queue; from then on it is a job that ends exactly once, also if processes die.

        An `id` makes it safe to submit the same request again, from anywhere and at any time while its Result is
        kept: it runs once, and every handle gets the one answer.

        Args:
            model: the name it is served under.
            prompt: text, a list of chat messages, or a whole `Request`.
            tier: `interactive`, `standard` or `batch`.
            traceparent: W3C's, of the span that asks.
            timeout: seconds to get it stored.
            fields: any other field of `Request`, e.g. `max_tokens=64`, `temperature=0`, `id="job-1"`.

        Raises:
            InvalidRequestError, UnsupportedError, TooLargeError, ModelNotFoundError: before anything is sent; and
                InvalidRequestError with field `id` if that id was submitted before and asks for something else.
            QuotaExceededError: the queue is full.
            ResultNotFoundError: the id was submitted before, and its Result is kept no longer.
            BrokerError: not stored within `timeout`, as far as is known; submit again with the same `id` is safe.
        """
        submitting = self._client.submit(model, prompt, tier=tier, traceparent=traceparent, timeout=timeout, **fields)
        return BlockingJob(self._loop, self._loop.run(submitting))

    def generate(
        self,
        model: str,
        prompt: str | Messages | Request | None = None,
        *,
        tier: Tier = "standard",
        traceparent: str = "",
        timeout: float | None = None,
        **fields: Unpack[RequestFields],
    ) -> Result:
        """Submit, and wait for the Result. Events are not streamed unless `stream=True`.

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
        generating = self._client.generate(model, prompt, tier=tier, traceparent=traceparent, timeout=timeout, **fields)
        return self._loop.run(generating)

    def embed(
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
        embedding = self._client.embed(model, input, tier=tier, traceparent=traceparent, timeout=timeout, **fields)
        return self._loop.run(embedding)

    def job(self, id: str, *, index: int = 0, timeout: float = FOLLOW_S) -> BlockingJob:
        """The handle of a job by its id, submitted by anybody of this tenant: its journal, then live.

        Args:
            index: output tokens its reader has had, to go on after them: the last delta's `index` and the number of
                its `token_ids`. Where that cannot be, a `Restarted` comes first, and all of the output after it.
            timeout: seconds after which waits on this handle end.

        Raises:
            InvalidRequestError: `id` cannot be the id of a job. ValueError: `index` is negative.
        """

        async def open_job() -> Job:
            return self._client.job(id, index=index, timeout=timeout)

        return BlockingJob(self._loop, self._loop.run(open_job()))

    def result(self, id: str, *, timeout: float = READ_S) -> Result:
        """The Result of a job that has ended.

        Args:
            timeout: seconds for NATS to answer.

        Raises:
            ResultNotFoundError: it has none (yet), or it is kept no longer.
            BrokerError: NATS did not answer.
        """
        return self._loop.run(self._client.result(id, timeout=timeout))

    def workers(self, *, timeout: float = READ_S) -> list[Presence]:
        """The workers alive.

        Args:
            timeout: seconds for NATS to answer.

        Raises:
            BrokerError: it did not.
        """
        return self._loop.run(self._client.workers(timeout=timeout))

    def close(self) -> None:
        """Close the client, its connection and its thread; its jobs go on. Idempotent; leaving `with` does it.

        Calls under way in other threads end with DisconnectedError, and so does each later call.
        """
        self._loop.stop(self._client.aclose)


def connect(
    servers: str | Sequence[str] = DEFAULT_URL,
    *,
    tenant: str = "default",
    namespace: str = DEFAULT_NAMESPACE,
    encoding: Encoding = "json",
    options: ConnectOptions | None = None,
    timeout: float | None = None,
) -> BlockingClient:
    """A connected client, for `with` or to be closed by `close`. Closing it does not touch the jobs.

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
    connecting = asynchronous.connect(
        servers, tenant=tenant, namespace=namespace, encoding=encoding, options=options, timeout=timeout
    )
    loop = LoopThread()
    try:
        return BlockingClient(loop, loop.run(_opened(connecting)))
    except BaseException:
        loop.stop()
        raise


async def _opened(connecting: Connecting) -> Client:
    return await connecting


async def _next(stream: AsyncGenerator[Delta | Restarted, None]) -> Delta | Restarted | None:
    return await anext(stream, None)


async def _close(stream: AsyncGenerator[Delta | Restarted, None]) -> None:
    await stream.aclose()
