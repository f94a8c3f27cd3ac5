"""taskiq on JetStream by taskiq-nats, results in its object store, tokens over core NATS.

Written after taskiq-python.github.io ("Getting started", "CLI") and taskiq-nats' README: the pull-based JetStream
broker (with the push-based one a client that starts takes tasks too, and never runs them), acknowledged when the
result is saved (the default). taskiq has no streams, so tokens go to a subject of the job beside it. `wait_result`
looks every 200 ms by default; here every 20.

Not given: each read of a result leaves a consumer behind for 5 s, of which a stream has 1000 at most, so that at 64 at
once some reads fail with "maximum consumers limit reached", and are repeated here a second later, which taskiq
does not do; a reader that is late or away misses tokens for good; a task that is delivered twice streams
twice; the stream keeps every message until somebody gives it a limit; a long task is delivered again after `ack_wait`.
"""

import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from nats.aio.client import Client as Nats
from taskiq import ResultGetError, ResultIsReadyError

from mesh.protocol.messages import Request
from mesh.server import embedded_server
from tests.bench.engine import CAPACITY
from tests.bench.floor import connect
from tests.bench.rivals.parts import KeptTimes, RivalSide, family, program
from tests.bench.stream import BenchError, Stream

LOOK_S = 0.020
AGAIN_S = 1.0  # after a read that failed: sooner, those that fail take the time of the others
TIMEOUT_S = 120.0
START_S = 30.0


class TaskiqAsker:
    """The asking end."""

    def __init__(self, task: Any, connection: Nats) -> None:
        self._task = task
        self._connection = connection
        self.kept = KeptTimes()
        self.failed_reads = 0

    async def run(self, request: Request) -> Stream:
        stream = Stream(uuid.uuid4().hex, time.monotonic())
        if request.stream:
            subject = f"tokens.{stream.job}"
            tokens = await self._connection.subscribe(subject)
            waiting = await self._task.kiq(stream.job, request.prompt, request.max_tokens, subject)
            async for message in tokens.messages:
                piece = json.loads(message.data)
                if "done" in piece:
                    break
                stream.add(piece["text"], piece["token_ids"])
            await tokens.unsubscribe()
        else:
            waiting = await self._task.kiq(stream.job, request.prompt, request.max_tokens, None)
        result = await self._wait(waiting)
        if result.is_err:
            raise BenchError(f"job {stream.job}: {result.error!r}")
        stream.result_text, stream.done_s = result.return_value["text"], time.monotonic()
        if result.return_value["times"] is not None:
            self.kept.times[stream.job] = tuple(result.return_value["times"])
        return stream

    async def _wait(self, waiting: Any) -> Any:
        """The result. A read of the object store makes a consumer, which the server refuses at times under load."""
        while True:
            try:
                return await waiting.wait_result(check_interval=LOOK_S, timeout=TIMEOUT_S)
            except (ResultGetError, ResultIsReadyError):
                self.failed_reads += 1
                await asyncio.sleep(AGAIN_S)


@contextlib.asynccontextmanager
async def side(name: str) -> AsyncIterator[RivalSide]:
    async with embedded_server() as server, await connect(server.url) as connection:
        from tests.bench.rivals import taskiq_app

        argv = [sys.executable, "-m", "taskiq", "worker", "--workers", "1", "--max-async-tasks", str(CAPACITY)]
        argv += ["--log-level", "WARNING", "tests.bench.rivals.taskiq_app:broker"]
        async with program(*argv, BENCH_NATS_URL=server.url) as pid:
            broker = taskiq_app.broker
            broker.servers = [server.url]
            broker.result_backend.servers = [server.url]
            await broker.startup()
            try:
                async with asyncio.timeout(START_S):
                    task = await taskiq_app.generate.kiq("first", "fast prompt number 0", 1, None)
                    await task.wait_result(check_interval=LOOK_S, timeout=START_S)
                assert server.process is not None
                asker = TaskiqAsker(taskiq_app.generate, connection)
                pids = {"worker": family(pid), "broker": (server.process.pid,)}
                yield RivalSide(name, asker, pids, asker.kept.take)
                if asker.failed_reads:
                    print(f"{name}: {asker.failed_reads} reads of a result failed and were repeated", file=sys.stderr)
            finally:
                await broker.shutdown()
