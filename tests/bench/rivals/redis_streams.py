"""Redis streams by hand, twice: as usually typed, and tuned. Also the worker's program.

python -m tests.bench.rivals.redis_streams typed|tuned URL

Typed after "Redis Streams" and "Pub/Sub" of redis.io and redis-py's asyncio examples: XADD, XREADGROUP, a task for each
entry, a PUBLISH for each token, SET of the result, XACK. Tuned: commands that meet in one turn of the loop share a
pipeline, tokens that meet share a message, and a client has one channel for all its jobs.

Not given by either: an entry whose worker died stays pending until somebody writes the XAUTOCLAIM; nothing fences the
old worker then; a reader that is late or away misses tokens for good; nothing is on disk unless Redis is told.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
import uvloop

from mesh.engines.base import Work
from mesh.protocol.messages import Request
from tests.bench.child import answer, child, keep_stdout
from tests.bench.engine import CAPACITY, BenchEngine
from tests.bench.rivals.parts import RivalSide, redis_server
from tests.bench.stream import Stream

JOBS, GROUP = "jobs", "workers"
KEPT = 100_000  # entries, approximately
RESULT_S = 3600
CONNECTIONS = 1024  # of a pool; with the default of 100 the typed client is refused some
BLOCK_MS = 2000  # below the 5 s after which redis-py gives up on an answer


class TypedAsker:
    """A subscription for each job."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._redis = connection

    async def run(self, request: Request) -> Stream:
        stream = Stream(uuid.uuid4().hex, time.monotonic())
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(f"tokens:{stream.job}")
            await self._redis.xadd(JOBS, {"job": json.dumps(_job(stream.job, request))}, maxlen=KEPT)
            async for message in channel.listen():
                piece = json.loads(message["data"])
                if "done" in piece:
                    break
                stream.add(piece["text"], piece["token_ids"])
        stream.result_text = (await self._redis.get(f"result:{stream.job}")).decode()
        stream.done_s = time.monotonic()
        return stream


class TypedWorker:
    """A task for each entry, a command for each step."""

    def __init__(self, connection: "redis.Redis", engine: BenchEngine) -> None:
        self._redis = connection
        self._engine = engine
        self._slots = asyncio.Semaphore(CAPACITY)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                found = await self._redis.xreadgroup(GROUP, "worker-1", {JOBS: ">"}, count=10, block=BLOCK_MS)
                for _, entries in found:
                    for entry, fields in entries:
                        await self._slots.acquire()
                        group.create_task(self._serve(entry, json.loads(fields[b"job"])))

    async def _serve(self, entry: bytes, job: dict[str, Any]) -> None:
        channel, text = f"tokens:{job['id']}", ""
        async for chunk in self._engine.generate(_work(job)):
            text += chunk.text
            if job["stream"]:
                await self._redis.publish(channel, json.dumps({"text": chunk.text, "token_ids": list(chunk.token_ids)}))
        await self._redis.set(f"result:{job['id']}", text, ex=RESULT_S)
        await self._redis.publish(channel, json.dumps({"done": True}))
        await self._redis.xack(JOBS, GROUP, entry)
        self._slots.release()


class Pipe:
    """Commands of one turn of the loop, and of the time that the last ones take, in one pipeline."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._redis = connection
        self._commands: list[tuple[Any, ...]] = []
        self._pieces: dict[str, list[Any]] = {}  # to be published, by channel
        self._more = asyncio.Event()

    def add(self, *command: Any) -> None:
        self._commands.append(command)
        self._more.set()

    def publish(self, channel: str, piece: object) -> None:
        self._pieces.setdefault(channel, []).append(piece)
        self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            pipeline = self._redis.pipeline(transaction=False)
            for command in self._commands:
                pipeline.execute_command(*command)
            for channel, pieces in self._pieces.items():
                pipeline.publish(channel, json.dumps(pieces))
            self._commands, self._pieces = [], {}
            await pipeline.execute()


class TunedAsker:
    """One channel for all jobs of this client, one pipeline for what it sends."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._redis = connection
        self._pipe = Pipe(connection)
        self._channel = f"client:{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._open: dict[str, tuple[Stream, asyncio.Future[None]]] = {}

    async def listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(self._channel)
            async for message in channel.listen():
                for job, text, token_ids in json.loads(message["data"]):
                    stream, done = self._open[job]
                    if token_ids is None:
                        stream.result_text = text
                        done.set_result(None)
                    else:
                        stream.add(text, token_ids)

    async def send(self) -> None:
        await self._pipe.run()

    async def run(self, request: Request) -> Stream:
        stream = Stream(f"{self._channel[-8:]}{next(self._numbers):x}", time.monotonic())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[stream.job] = (stream, done)
        job = json.dumps({**_job(stream.job, request), "channel": self._channel})
        self._pipe.add("XADD", JOBS, "MAXLEN", "~", KEPT, "*", "job", job)
        await done
        del self._open[stream.job]
        stream.done_s = time.monotonic()
        return stream


class TunedWorker:
    """As the typed one, with a pipe."""

    def __init__(self, connection: "redis.Redis", engine: BenchEngine) -> None:
        self._redis = connection
        self._engine = engine
        self._pipe = Pipe(connection)
        self._slots = asyncio.Semaphore(CAPACITY)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipe.run())
            while True:
                found = await self._redis.xreadgroup(GROUP, "worker-1", {JOBS: ">"}, count=CAPACITY, block=BLOCK_MS)
                for _, entries in found:
                    for entry, fields in entries:
                        await self._slots.acquire()
                        group.create_task(self._serve(entry, json.loads(fields[b"job"])))

    async def _serve(self, entry: bytes, job: dict[str, Any]) -> None:
        text = ""
        async for chunk in self._engine.generate(_work(job)):
            text += chunk.text
            if job["stream"]:
                self._pipe.publish(job["channel"], (job["id"], chunk.text, list(chunk.token_ids)))
        # One pipeline, in this order: stored, then told.
        self._pipe.add("SET", f"result:{job['id']}", text, "EX", RESULT_S)
        self._pipe.add("XACK", JOBS, GROUP, entry)
        self._pipe.publish(job["channel"], (job["id"], text, None))
        self._slots.release()


def _job(job: str, request: Request) -> dict[str, Any]:
    return {"id": job, "prompt": request.prompt, "max_tokens": request.max_tokens, "stream": request.stream}


def _work(job: dict[str, Any]) -> Work:
    return Work(job["id"], Request(prompt=job["prompt"], max_tokens=job["max_tokens"], temperature=0), 0)


@contextlib.asynccontextmanager
async def typed(name: str) -> AsyncIterator[RivalSide]:
    async with _running(name, "typed") as (connection, side):
        side.asker = TypedAsker(connection)
        yield side


@contextlib.asynccontextmanager
async def tuned(name: str) -> AsyncIterator[RivalSide]:
    async with _running(name, "tuned") as (connection, side):
        side.asker = asker = TunedAsker(connection)
        tasks = [asyncio.create_task(asker.listen()), asyncio.create_task(asker.send())]
        try:
            yield side
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _running(name: str, kind: str) -> AsyncIterator[tuple["redis.Redis", RivalSide]]:
    async with redis_server() as (url, redis_pid), redis.from_url(url, max_connections=CONNECTIONS) as connection:
        await connection.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
        async with child("tests.bench.rivals.redis_streams", kind, url) as process:

            async def times() -> dict[str, tuple[float, float]]:
                return {job: tuple(each) for job, each in (await process.ask("times")).items()}

            pids: dict[str, tuple[int, ...]] = {"worker": (process.pid,), "broker": (redis_pid,)}
            yield connection, RivalSide(name, TypedAsker(connection), pids, times)


async def serve(kind: str, url: str) -> None:
    """The worker's program."""
    engine = BenchEngine()
    await engine.start()
    async with redis.from_url(url, max_connections=CONNECTIONS) as connection:
        worker = (TypedWorker if kind == "typed" else TunedWorker)(connection, engine)
        working = asyncio.create_task(worker.run())

        async def respond(question: Any) -> object:
            return engine.take_times()

        answering = asyncio.create_task(answer(respond))
        # A worker that breaks ends this program, and with it the benchmark.
        await asyncio.wait({working, answering}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await engine.stop()


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(serve(*sys.argv[1:]))
