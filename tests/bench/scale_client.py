"""A client process of the scale benchmark: python -m tests.bench.scale_client URL

One connection. The parent asks for loads by name, and reads CPU and memory of this process meanwhile.
"""

import asyncio
import contextlib
import functools
import gc
import sys
import time
from typing import Any

import uvloop

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.client.catalog import Catalog
from mesh.client.client import Client
from mesh.client.internal import ClientCore
from mesh.client.job import Job
from mesh.protocol.messages import Request
from mesh.protocol.subjects import Names
from tests.bench.child import answer, keep_stdout
from tests.bench.engine import expected, prompt_of
from tests.bench.load import Watch, keep_open
from tests.bench.scale_engine import FAST
from tests.bench.sides import follow
from tests.bench.stream import BenchError, Stream
from tests.bench.worker import MODEL

PROMPTS = 16  # different answers, so that tokens of one job in another are seen
SUBMITS_AT_ONCE = 64
STAND_MS = 3_600_000  # the deadline of jobs that only stand in the queue


class Asking:
    """What the parent may ask for, one method each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._catalog = Catalog(Broker(connection, Names()))
        self._clients: list[Client] = []
        self._polling: list[asyncio.Task[None]] = []
        self._standing: list[Job] = []
        self._streams: list[Stream] = []
        self._streaming: list[asyncio.Task[None]] = []
        self._is_quiet = False

    async def respond(self, question: Any) -> object:
        return await getattr(self, question.pop("do"))(**question)

    async def unary(self, total: int, at_once: int, tenants: int = 1) -> float:
        """`total` requests of one token, spread over tenants, `at_once` at a time; the seconds they took."""
        clients, watch = self._of(tenants), Watch()
        await keep_open(at_once, [functools.partial(_one, clients[n % tenants], n) for n in range(total)])
        return watch.elapsed_s()

    async def offered(self, rate: float, seconds: float) -> int:
        """The same, `rate` of them a second whatever becomes of them; how many there were."""
        [client], total, began_s = self._of(1), int(rate * seconds), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(total):
                await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
                group.create_task(_one(client, number))
        return total

    async def fill(self, model: str, total: int) -> float:
        """Submit jobs that nobody serves yet, and keep their handles; the seconds that took."""
        [client], watch = self._of(1), Watch()
        deadline_unix_ms = time.time_ns() // 1_000_000 + STAND_MS

        async def submit(number: int) -> Job:
            prompt = prompt_of(FAST, number % PROMPTS)
            request = Request(
                prompt=prompt, max_tokens=1, temperature=0, stream=False, deadline_unix_ms=deadline_unix_ms
            )
            return await client.submit(model, request)

        self._standing += await keep_open(SUBMITS_AT_ONCE, [functools.partial(submit, n) for n in range(total)])
        return watch.elapsed_s()

    async def let_go(self) -> None:
        """Close the handles of the jobs that stand in the queue."""
        for job in self._standing:
            job.close()
        self._standing.clear()
        gc.collect()

    async def begin(self, pace: str, total: int, tokens: int, spread_s: float) -> None:
        """Begin streams, over `spread_s`. They are checked by `finish`."""
        [client] = self._of(1)
        answers = [expected(prompt_of(pace, number), tokens) for number in range(PROMPTS)]
        self._streams = [Stream("", 0.0) for _ in range(total)]

        async def one(number: int) -> None:
            await asyncio.sleep(spread_s * number / total)
            stream, (text, token_ids) = self._streams[number], answers[number % PROMPTS]
            request = Request(prompt=prompt_of(pace, number % PROMPTS), max_tokens=tokens, temperature=0)
            stream.asked_s = time.monotonic()
            stream.result_text = str((await follow(client, request, stream)).text)
            stream.check(text, token_ids)

        self._streaming = [asyncio.create_task(one(number)) for number in range(total)]

    async def standing(self) -> dict[str, int]:
        """Of the streams begun: how many are a job, how many have shown a token, all of their tokens, and the ended."""
        return {
            "jobs": sum(bool(each.job) for each in self._streams),
            "shown": sum(bool(each.counts) for each in self._streams),
            "tokens": sum(map(len, (each.token_ids for each in self._streams))),
            "ended": sum(task.done() for task in self._streaming),
        }

    async def finish(self) -> int:
        """Await them all, each complete and in order; how many."""
        await asyncio.gather(*self._streaming)
        count = len(self._streaming)
        self._streaming, self._streams = [], []
        gc.collect()
        return count

    def _of(self, tenants: int) -> list[Client]:
        """A client for each tenant, all on our connection."""
        for number in range(len(self._clients), tenants):
            tenant = f"tenant-{number}"
            broker, where = Broker(self._connection, Names()), "the benchmark's NATS"
            core = ClientCore(broker, tenant, "json", where, catalog=self._catalog)
            self._clients.append(Client(core, contextlib.AsyncExitStack()))
            self._polling.append(asyncio.create_task(core.poller.run(), name=f"poller-{tenant}"))
        return self._clients[:tenants]

    async def close(self) -> None:
        for polling in self._polling:
            polling.cancel()
        await asyncio.gather(*self._polling, return_exceptions=True)


async def _one(client: Client, number: int) -> None:
    """One request of one token, answered and right."""
    prompt = prompt_of(FAST, number % PROMPTS)
    result = await client.generate(MODEL, Request(prompt=prompt, max_tokens=1, temperature=0, stream=False))
    result.raise_for_status()
    text, _ = expected(prompt, 1)
    if result.text != text:
        raise BenchError(f"job {result.id}: {result.text!r} in place of {text!r}")


async def main(url: str) -> None:
    """Answer the parent until it closes our stdin."""
    async with connect(ConnectOptions(servers=(url,), name="bench-client")) as connection:
        asking = Asking(connection)
        try:
            await answer(asking.respond)
        finally:
            await asking.close()


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(main(sys.argv[1]))
