"""Celery + Redis, tokens over Redis pub/sub.

Written after "First Steps with Celery", "Tasks" (`acks_late`) and "Optimizing" of docs.celeryq.dev, and redis-py's
"Pub / Sub". Celery has no streams, so tokens go to a channel of the job beside it, as people do. A worker with 128
threads: the task waits far more than it computes, and the prefork pool would need a process for each stream.

Not given: a reader that is late or away misses tokens for good; a task that is delivered twice streams twice into
the same channel; a worker that dies is noticed after `visibility_timeout` (an hour), by default.
"""

import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from celery import Celery

from mesh.protocol.messages import Request
from tests.bench.engine import CAPACITY
from tests.bench.rivals.parts import KeptTimes, RivalSide, family, program, redis_server
from tests.bench.stream import BenchError, Stream

PUBLISH = "tests.bench.rivals.celery_app.publish_tokens"
TIMEOUT_S = 120.0
START_S = 30.0  # of a worker


class CeleryAsker:
    """The asking end. Celery's client blocks, so each request has a thread."""

    def __init__(self, app: Celery, url: str) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(url, max_connections=1024)
        self._threads = ThreadPoolExecutor(CAPACITY, "celery-client")
        self.kept = KeptTimes()

    async def run(self, request: Request) -> Stream:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, request)

    def _run(self, request: Request) -> Stream:
        stream = Stream(str(uuid.uuid4()), time.monotonic())
        if request.stream:
            with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                channel.subscribe(stream.job)
                promise = self._submit(request, stream.job, stream.job)
                for message in channel.listen():
                    piece = json.loads(message["data"])
                    if "done" in piece:
                        break
                    stream.add(piece["text"], piece["token_ids"])
        else:
            promise = self._submit(request, stream.job, None)
        answer = promise.get(timeout=TIMEOUT_S)
        stream.result_text, stream.done_s = answer["text"], time.monotonic()
        self.kept.times[stream.job] = (answer["entered_s"], answer["due_s"])
        return stream

    def _submit(self, request: Request, job: str, channel: str | None) -> Any:
        arguments = (request.prompt, request.max_tokens, channel)
        return self._app.send_task(PUBLISH, arguments, task_id=job)

    def close(self) -> None:
        self._threads.shutdown()
        self._redis.close()


@contextlib.asynccontextmanager
async def side(name: str) -> AsyncIterator[RivalSide]:
    async with redis_server() as (url, redis_pid), worker(url) as (app, worker_pid):
        asker = CeleryAsker(app, url)
        try:
            yield RivalSide(name, asker, {"worker": family(worker_pid), "broker": (redis_pid,)}, asker.kept.take)
        finally:
            asker.close()


@contextlib.asynccontextmanager
async def worker(url: str, pool: str = "threads") -> AsyncIterator[tuple[Celery, int]]:
    """A Celery worker that answers, and an application that asks it, by its tasks' names."""
    app = Celery("asker", broker=url, backend=url)
    argv = [sys.executable, "-m", "celery", "-A", "tests.bench.rivals.celery_app", "worker", "--pool", pool]
    argv += ["--concurrency", str(CAPACITY), "--loglevel", "ERROR"]
    argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]  # chatter of workers among themselves
    async with program(*argv, BENCH_REDIS_URL=url) as pid:
        try:
            await asyncio.to_thread(_first, app)
        except Exception as error:
            raise BenchError(f"no Celery worker answers after {START_S:.0f} s: {error!r}") from error
        yield app, pid


def _first(app: Celery) -> None:
    """One task there and back. Both in one thread: a backend of Celery belongs to the thread that made it."""
    app.send_task(PUBLISH, ("fast prompt number 0", 1, None)).get(timeout=START_S)
