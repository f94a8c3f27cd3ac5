"""The client for programs without an event loop: the same objects, driven from a thread of their own.

with mesh.blocking.connect() as client:
    job = client.submit("demo", "Tell me a story.")
    for delta in job:
        print(delta.text, end="", flush=True)
    print(job.result().usage)
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from mesh.client import client as asynchronous
from mesh.client.assembly import Restarted
from mesh.client.client import DEFAULT_URL, Client
from mesh.client.job import Job
from mesh.errors import DisconnectedError
from mesh.protocol.messages import Delta, Presence, Request, Result

T = TypeVar("T")

CLOSED = "this client is closed; its jobs go on, and `client.job(id)` of a new one finds them"


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()  # what is begun before `stop` is ended by it, and nothing is begun after
        self._is_stopped = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="mesh-blocking", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which has a bound of its own; an interrupt of the waiting thread (Ctrl-C) cancels it.

        Raises:
            DisconnectedError: the client is closed.
        """
        future = self._begin(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise DisconnectedError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End what still runs, so that no thread waits for it for ever, and the loop."""
        ending = self._begin(_cancel_others(), is_last=True)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, work: Coroutine[Any, Any, T], is_last: bool = False) -> "concurrent.futures.Future[T]":
        with self._lock:
            if self._is_stopped:
                work.close()
                raise DisconnectedError(CLOSED)
            self._is_stopped = is_last
            return asyncio.run_coroutine_threadsafe(work, self._loop)


class BlockingJob:
    """A `Job`, blocking. See mesh.client.job."""

    def __init__(self, loop: _Loop, job: Job) -> None:
        self._loop = loop
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def id(self) -> str:
        return self._job.id

    def result(self, timeout: float | None = None) -> Result:
        """As `Job.result`."""
        return self._loop.run(self._job.result(timeout))

    def __iter__(self) -> Iterator[Delta | Restarted]:
        """As iterating a `Job`."""
        return self.deltas()

    def deltas(self, timeout: float | None = None) -> Iterator[Delta | Restarted]:
        """As `Job.deltas`."""
        stream = self._job.deltas(timeout)
        try:
            while (shown := self._loop.run(_next(stream))) is not None:
                yield shown
        finally:
            with contextlib.suppress(DisconnectedError):  # then it ended with the client
                self._loop.run(stream.aclose())

    def cancel(self, timeout: float = 10.0) -> str:
        """As `Job.cancel`."""
        return self._loop.run(self._job.cancel(timeout))

    def status(self, timeout: float = 10.0) -> dict[str, Any]:
        """As `Job.status`."""
        return self._loop.run(self._job.status(timeout))

    def close(self) -> None:
        """As `Job.close`."""

        async def close() -> None:
            self._job.close()

        self._loop.run(close())


class BlockingClient:
    """A `Client`, blocking. See mesh.client.client."""

    def __init__(self, loop: _Loop, client: Client) -> None:
        self._loop = loop
        self._client = client

    def __repr__(self) -> str:
        return repr(self._client)

    def submit(
        self, model: str, prompt: str | Sequence[dict[str, str]] | Request | None = None, **arguments: Any
    ) -> BlockingJob:
        """As `Client.submit`."""
        return BlockingJob(self._loop, self._loop.run(self._client.submit(model, prompt, **arguments)))

    def generate(
        self, model: str, prompt: str | Sequence[dict[str, str]] | Request | None = None, **arguments: Any
    ) -> Result:
        """As `Client.generate`."""
        return self._loop.run(self._client.generate(model, prompt, **arguments))

    def embed(self, model: str, input: str | Sequence[str], **arguments: Any) -> list[list[float]]:
        """As `Client.embed`."""
        return self._loop.run(self._client.embed(model, input, **arguments))

    def job(self, id: str, **arguments: Any) -> BlockingJob:
        """As `Client.job`."""

        async def open_job() -> Job:
            return self._client.job(id, **arguments)

        return BlockingJob(self._loop, self._loop.run(open_job()))

    def result(self, id: str, **arguments: Any) -> Result:
        """As `Client.result`."""
        return self._loop.run(self._client.result(id, **arguments))

    def workers(self, **arguments: Any) -> list[Presence]:
        """As `Client.workers`."""
        return self._loop.run(self._client.workers(**arguments))


@contextlib.contextmanager
def connect(servers: str | Sequence[str] = DEFAULT_URL, **arguments: Any) -> Iterator[BlockingClient]:
    """A blocking client for as long as the context lasts; takes what `mesh.connect` takes."""
    loop = _Loop()
    try:
        context = asynchronous.connect(servers, **arguments)
        client = loop.run(_enter(context))
        try:
            yield BlockingClient(loop, client)
        finally:
            loop.run(_exit(context))
    finally:
        loop.stop()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _next(stream: AsyncIterator[Delta | Restarted]) -> Delta | Restarted | None:
    return await anext(stream, None)


async def _enter(context: contextlib.AbstractAsyncContextManager[Client]) -> Client:
    return await context.__aenter__()


async def _exit(context: contextlib.AbstractAsyncContextManager[Client]) -> None:
    await context.__aexit__(None, None, None)
