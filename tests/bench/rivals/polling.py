"""FastAPI in front of Celery + Redis, polled over HTTP.

Written after "First Steps" and "Custom states" (`update_state`) of docs.celeryq.dev and FastAPI's first steps: POST
gives an id, GET shows the state, the client looks every 50 ms. Tokens are in the state, the text so far.

Not given: what `celery_pubsub` does not give, but that a late reader can still see the whole text; and a
reader sees tokens when it looks, not when they are there.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import aiohttp

from mesh.protocol.messages import Request
from mesh.server import free_port
from tests.bench.rivals.celery_pubsub import worker
from tests.bench.rivals.parts import KeptTimes, RivalSide, family, program, redis_server, wait_port
from tests.bench.stream import BenchError, Stream

POLL_S = 0.050


class PollingAsker:
    """The asking end."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.kept = KeptTimes()

    async def run(self, request: Request) -> Stream:
        asked_s = time.monotonic()
        body = {"prompt": request.prompt, "max_tokens": request.max_tokens, "stream": request.stream}
        async with self._session.post(self._url, json=body) as response:
            stream = Stream((await response.json())["id"], asked_s)
        while True:
            await asyncio.sleep(POLL_S)
            async with self._session.get(f"{self._url}/{stream.job}") as response:
                found = await response.json()
            state, result = found["state"], found["result"]
            if state not in ("PENDING", "STARTED", "PROGRESS", "SUCCESS"):
                raise BenchError(f"job {stream.job}: {found}")
            if state in ("PROGRESS", "SUCCESS") and len(result["token_ids"]) > len(stream.token_ids):
                stream.add(result["text"][len(stream.text) :], result["token_ids"][len(stream.token_ids) :])
            if state == "SUCCESS":
                stream.result_text, stream.done_s = result["text"], time.monotonic()
                self.kept.times[stream.job] = (result["entered_s"], result["due_s"])
                return stream


@contextlib.asynccontextmanager
async def side(name: str) -> AsyncIterator[RivalSide]:
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "tests.bench.rivals.polling_app:api", "--port", str(port)]
    argv += ["--no-access-log", "--log-level", "warning"]
    async with (
        redis_server() as (url, redis_pid),
        worker(url) as (_, worker_pid),
        program(*argv, BENCH_REDIS_URL=url) as api_pid,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await wait_port(port)
        asker = PollingAsker(session, f"http://127.0.0.1:{port}/jobs")
        pids = {"worker": family(worker_pid), "api": family(api_pid), "broker": (redis_pid,)}
        yield RivalSide(name, asker, pids, asker.kept.take)
