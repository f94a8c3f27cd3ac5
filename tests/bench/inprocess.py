"""The mesh on vLLM against AsyncLLM in one process, and `vllm serve`. Called by `python -m tests.bench vllm`."""

import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from mesh.protocol.messages import Request
from tests.bench.child import Child, child
from tests.bench.cpu import Meter
from tests.bench.load import Watch, keep_open
from tests.bench.report import Report
from tests.bench.sides import MeshAsker, running_mesh
from tests.bench.stream import BenchError, Stream, percentile

TOKENS = 64
PROMPT_TOKENS = 16
VOCABULARY = range(3, 512)  # ids that any model has; the lowest are often special
REQUESTS_AT_LEAST, REQUESTS_PER_LANE, REQUESTS_AT_MOST = 24, 6, 320


class Engine(Protocol):
    """One side: the same requests, each answer with its times."""

    name: str

    async def run(self, prompts: list[list[int]], at_once: int) -> list[Stream]: ...

    def meter(self) -> Meter: ...


@dataclass(slots=True)
class OnMesh:
    """Through the mesh: its client here, its worker in a child."""

    asker: MeshAsker
    worker: Child
    broker_pid: int
    name: str = "mesh"

    async def run(self, prompts: list[list[int]], at_once: int) -> list[Stream]:
        async def one(number: int, prompt: list[int]) -> Stream:
            request = Request(prompt_token_ids=prompt, max_tokens=TOKENS, temperature=0, ignore_eos=True)
            stream = await self.asker.run(request)
            if stream.text != stream.result_text:
                raise BenchError(f"job {stream.job}: the streamed text is not the Result's")
            stream.job = str(number)
            return stream

        return await keep_open(at_once, [partial(one, *each) for each in enumerate(prompts)])

    def meter(self) -> Meter:
        return Meter({"front": self.worker.pid, "client": os.getpid(), "broker": self.broker_pid})


@dataclass(slots=True)
class Direct:
    """AsyncLLM and its caller in one child."""

    process: Child
    name: str = "direct"

    async def run(self, prompts: list[list[int]], at_once: int) -> list[Stream]:
        question = {"prompts": prompts, "at_once": at_once, "tokens": TOKENS}
        return msgspec.convert(await self.process.ask(question), list[Stream])

    def meter(self) -> Meter:
        return Meter({"front": self.process.pid})


@contextlib.asynccontextmanager
async def _engines(model: str, *, with_http: bool, coalesce_ms: float) -> AsyncIterator[list[Engine]]:
    _tell("loading vLLM behind the mesh")
    async with running_mesh("vllm", model, str(coalesce_ms)) as (client, worker, broker_pid):
        _tell(f"it takes {await worker.ask('capacity')} jobs at once; loading vLLM in one process")
        async with child("tests.bench.direct", model) as process, contextlib.AsyncExitStack() as stack:
            engines: list[Engine] = [OnMesh(MeshAsker(client), worker, broker_pid), Direct(process)]
            if with_http:
                from tests.bench.serve import over_http  # aiohttp comes with vLLM, not with the tests

                _tell("loading vLLM behind HTTP")
                engines.append(await stack.enter_async_context(over_http(model, TOKENS)))
            yield engines


async def measure(
    model: str, rounds: int, levels: Sequence[int], *, with_http: bool = False, coalesce_ms: float = 0.0
) -> Report:
    """Every level in every round, on all in turn; who goes first alternates.

    `model`: a folder, or a hub id; the same for all, as are the prompts and the number of tokens.
    """
    async with _engines(model, with_http=with_http, coalesce_ms=coalesce_ms) as engines:
        report = Report("vLLM, requests at once", [engine.name for engine in engines])
        for engine in engines:
            await engine.run(_prompts(64, seed=-1), 32)
        for number in range(rounds):
            for at_once in levels:
                total = max(REQUESTS_AT_LEAST, min(REQUESTS_AT_MOST, REQUESTS_PER_LANE * at_once))
                prompts = _prompts(total, seed=number * 1000 + at_once)
                found = {}
                for engine in engines if number % 2 == 0 else engines[::-1]:
                    found[engine.name] = await _run(report, engine, prompts, at_once)
                for name in found:
                    if name != "direct":
                        _compare(report, name, found[name], found["direct"])
                _tell(f"round {number + 1} of {rounds}: {at_once} at once is done")
    return report


async def _run(report: Report, engine: Engine, prompts: list[list[int]], at_once: int) -> list[Stream]:
    meter, watch = engine.meter(), Watch()
    streams = await engine.run(prompts, at_once)
    spent_s = meter.spent_s()
    # From asking to the last answer, as the askers saw it: a child's report takes time of its own.
    wall_s = min(watch.elapsed_s(), max(s.done_s for s in streams) - min(s.asked_s for s in streams))
    n_tokens = sum(len(stream.token_ids) for stream in streams)
    first_s = [stream.first_token_s() for stream in streams]
    broker_s = spent_s.pop("broker", None)
    # Of the processes that pass tokens on: the engine's core is none of them, the client is one.
    rows = {
        "tokens/s": n_tokens / wall_s,
        "first token p50, ms": percentile(first_s, 0.5) * 1e3,
        "first token p99, ms": percentile(first_s, 0.99) * 1e3,
        "between tokens p50, ms": percentile((stream.between_tokens_s() for stream in streams), 0.5) * 1e3,
        "CPU µs/token": sum(spent_s.values()) / n_tokens * 1e6,
    }
    for name, value in rows.items():
        report.add(f"{at_once:>2}: {name}", engine.name, value)
    if broker_s is not None:
        report.add(f"{at_once:>2}: broker CPU µs/token", engine.name, broker_s / n_tokens * 1e6)
    return streams


def _compare(report: Report, name: str, ours: list[Stream], theirs: list[Stream]) -> None:
    """Each answer is whole on both sides. Equal ones are counted: a batch of another size rounds differently."""
    tokens = {stream.job: stream.token_ids for stream in theirs}
    for stream in (*ours, *theirs):
        if len(stream.token_ids) != TOKENS:
            raise BenchError(f"an answer of {name} or direct has {len(stream.token_ids)} tokens, not {TOKENS}")
    report.count(f"whole of {name}", len(ours))
    report.count(f"{name} = direct", sum(stream.token_ids == tokens[stream.job] for stream in ours))


def _prompts(total: int, seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [rng.choices(VOCABULARY, k=PROMPT_TOKENS) for _ in range(total)]


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
