"""NVIDIA Dynamo's Python runtime, over its NATS and its TCP request plane. Also the worker's program.

python -m tests.bench.rivals.dynamo_runtime nats|tcp NATS_URL FOLDER

Written after the "Hello World" example of its repository and the stubs in its wheel: an async generator behind
`serve_endpoint`, a client's `round_robin`, uvloop at both ends. Requests go by the plane; tokens come back over a TCP
connection that the worker opens to the client, on both. Who serves stands in a folder, in place of etcd: it is read
when the client starts, and is on the path of no request.

Not given: nothing is queued (a request whose worker dies is lost, with what it has streamed), and nothing is kept to be
read later.
"""

import asyncio
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import uvloop

from mesh.engines.base import Work
from mesh.protocol.messages import Request
from mesh.server import embedded_server
from tests.bench.child import answer, child, keep_stdout
from tests.bench.engine import BenchEngine
from tests.bench.rivals.parts import RivalSide
from tests.bench.stream import Stream

if TYPE_CHECKING:
    from dynamo.runtime import Client, Context, DistributedRuntime

ENDPOINT = "bench.worker.generate"
START_S = 30.0
# The client writes a line for every request, whatever level is asked for, but to such a filter. It warns that one may
# cost something: measured, it costs no more than the lines do.
QUIET = "warn,request_span[{message}]=off"


class DynamoAsker:
    """The asking end."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._numbers = itertools.count()

    async def run(self, request: Request) -> Stream:
        stream = Stream(str(next(self._numbers)), time.monotonic())
        body = {"id": stream.job, "prompt": request.prompt, "max_tokens": request.max_tokens, "stream": request.stream}
        async for piece in await self._client.round_robin(body, annotated=False):
            if request.stream:
                stream.add(piece["text"], piece["token_ids"])
            else:
                stream.result_text = piece["text"]
        if request.stream:
            stream.result_text = stream.text
        stream.done_s = time.monotonic()
        return stream


@contextlib.asynccontextmanager
async def by_nats(name: str) -> AsyncIterator[RivalSide]:
    async with embedded_server() as server, _running(name, "nats", server.url) as side:
        assert server.process is not None
        side.pids["broker"] = (server.process.pid,)
        yield side


@contextlib.asynccontextmanager
async def by_tcp(name: str) -> AsyncIterator[RivalSide]:
    async with _running(name, "tcp", "") as side:
        yield side


@contextlib.asynccontextmanager
async def _running(name: str, plane: str, url: str) -> AsyncIterator[RivalSide]:
    with tempfile.TemporaryDirectory(prefix="bench-dynamo-") as folder:
        async with child("tests.bench.rivals.dynamo_runtime", plane, url, folder) as process:

            async def times() -> dict[str, tuple[float, float]]:
                return {job: tuple(each) for job, each in (await process.ask("times")).items()}

            runtime = _runtime(plane, NATS_SERVER=url, DYN_FILE_KV=folder, DYN_LOG=QUIET)
            try:
                client = await runtime.endpoint(ENDPOINT).client()
                async with asyncio.timeout(START_S):
                    await client.wait_for_instances()
                yield RivalSide(name, DynamoAsker(client), {"worker": (process.pid,)}, times)
            finally:
                runtime.shutdown()


def _runtime(plane: str, **variables: str) -> "DistributedRuntime":
    """With these variables in its environment, which it reads when it is imported and when it is made."""
    # Its events, which nobody sends here, go by NATS only where there is one.
    event_plane = "nats" if plane == "nats" else "zmq"
    with _environment(**variables):
        from dynamo.runtime import DistributedRuntime

        return DistributedRuntime(asyncio.get_running_loop(), "file", plane, event_plane=event_plane)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


async def serve(plane: str, url: str, folder: str) -> None:
    """The worker's program."""
    engine = BenchEngine()
    await engine.start()

    async def generate(body: dict[str, Any], context: "Context") -> AsyncIterator[dict[str, Any]]:
        request = Request(prompt=body["prompt"], max_tokens=body["max_tokens"], temperature=0)
        chunks = engine.generate(Work(body["id"], request, 0))
        if body["stream"]:
            async for chunk in chunks:
                yield {"text": chunk.text, "token_ids": list(chunk.token_ids)}
        else:
            yield {"text": "".join([chunk.text async for chunk in chunks])}

    async def respond(question: Any) -> object:
        return engine.take_times()

    runtime = _runtime(plane, NATS_SERVER=url, DYN_FILE_KV=folder, DYN_LOG="warn")
    serving = asyncio.ensure_future(runtime.endpoint(ENDPOINT).serve_endpoint(generate, graceful_shutdown=False))
    answering = asyncio.create_task(answer(respond))
    # A worker that breaks ends this program, and with it the benchmark.
    await asyncio.wait({serving, answering}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    runtime.shutdown()
    await asyncio.gather(serving, return_exceptions=True)
    await engine.stop()


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(serve(*sys.argv[1:]))
