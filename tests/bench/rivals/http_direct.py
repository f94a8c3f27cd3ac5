"""HTTP with server-sent events and no queue: the floor of having no durability. Also the server's program.

python -m tests.bench.rivals.http_direct

Written after "Responses" of starlette.io (`StreamingResponse`) and "Settings" of uvicorn.org, with uvloop and
httptools, no access log; the client is aiohttp, as in vLLM's own benchmark.

Not given: a request whose server or connection dies is lost, with what it has streamed; no queue, so a
server that is full refuses or is overrun; no result to read later; one client, one server that it must know.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mesh.engines.base import Work
from mesh.protocol.messages import Request
from mesh.server import free_port
from tests.bench.child import answer, child, keep_stdout
from tests.bench.engine import BenchEngine
from tests.bench.rivals.parts import RivalSide, wait_port
from tests.bench.stream import BenchError, Stream

OK = 200


class HttpAsker:
    """The asking end: one session, a connection for each request that is open."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._numbers = itertools.count()

    async def run(self, request: Request) -> Stream:
        stream = Stream(str(next(self._numbers)), time.monotonic())
        body = {"id": stream.job, "prompt": request.prompt, "max_tokens": request.max_tokens, "stream": request.stream}
        async with self._session.post(self._url, json=body) as response:
            if response.status != OK:
                raise BenchError(f"HTTP {response.status}: {await response.text()}")
            if request.stream:
                await self._read(response, stream)
            else:
                stream.result_text = (await response.json())["text"]
        stream.done_s = time.monotonic()
        return stream

    async def _read(self, response: aiohttp.ClientResponse, stream: Stream) -> None:
        rest = b""
        async for data in response.content.iter_any():  # whatever has come, which may be several events
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event != b"data: [DONE]":
                    piece = json.loads(event.removeprefix(b"data: "))
                    stream.add(piece["text"], piece["token_ids"])
        stream.result_text = stream.text


def application(engine: BenchEngine) -> Starlette:
    """The server."""

    async def generate(request: HttpRequest) -> Response:
        body = await request.json()
        wanted = Request(prompt=body["prompt"], max_tokens=body["max_tokens"], temperature=0)
        chunks = engine.generate(Work(body["id"], wanted, 0))
        if not body["stream"]:
            return JSONResponse({"text": "".join([chunk.text async for chunk in chunks])})

        async def events() -> AsyncIterator[str]:
            async for chunk in chunks:
                yield f"data: {json.dumps({'text': chunk.text, 'token_ids': list(chunk.token_ids)})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/generate", generate, methods=["POST"])])


@contextlib.asynccontextmanager
async def side(name: str) -> AsyncIterator[RivalSide]:
    port = free_port()
    async with child("tests.bench.rivals.http_direct", str(port)) as process:
        await wait_port(port)

        async def times() -> dict[str, tuple[float, float]]:
            return {job: tuple(each) for job, each in (await process.ask("times")).items()}

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            asker = HttpAsker(session, f"http://127.0.0.1:{port}/generate")
            yield RivalSide(name, asker, {"worker": (process.pid,)}, times)


async def serve(port: int) -> None:
    """The server's program."""
    engine = BenchEngine()
    await engine.start()
    config = uvicorn.Config(application(engine), port=port, log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())

    async def respond(question: Any) -> object:
        return engine.take_times()

    await answer(respond)
    server.should_exit = True
    await serving
    await engine.stop()


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(serve(int(sys.argv[1])))
