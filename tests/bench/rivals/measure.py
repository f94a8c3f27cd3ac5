"""The mesh against what people would use instead. Called by `python -m tests.bench rivals`.

All sides stay up and take turns, who goes first alternates, and every answer is checked. Each measure is one load from
this process, which is the client of all of them.
"""

import contextlib
import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from tests.bench.engine import INSTANT
from tests.bench.report import Block, Report
from tests.bench.rivals.parts import missing
from tests.bench.sides import COALESCED, FLOOR, MESH, Measured, MeshAsker, Side, floor_sides, running_mesh
from tests.bench.simulated import Measure, Round, Sizes
from tests.bench.worker import MODEL

GATHER_MS = 20
GATHERING = f"mesh-{GATHER_MS}ms"  # a second mesh, whose worker lets tokens gather
OURS = (GATHERING, FLOOR, COALESCED)
SIZES = Sizes(alone=100, many=1500, streams=128, stream_tokens=128, paced=128)


@dataclass(frozen=True, slots=True)
class Rival:
    """Where a rival is written, and what it needs."""

    module: str
    opened_by: str = "side"
    needs: tuple[str, ...] = ()
    needs_redis: bool = True

    def missing(self) -> str | None:
        return missing(self.needs, redis=self.needs_redis)

    def open(self, name: str) -> contextlib.AbstractAsyncContextManager[Measured]:
        module = importlib.import_module(f"tests.bench.rivals.{self.module}")
        opened: contextlib.AbstractAsyncContextManager[Measured] = getattr(module, self.opened_by)(name)
        return opened


# By the name under which `--only` knows it. What a library runs slower without is needed too.
RIVALS = {
    "celery": Rival("celery_pubsub", needs=("celery", "redis", "hiredis")),
    "redis-typed": Rival("redis_streams", "typed", needs=("redis", "hiredis")),
    "redis-tuned": Rival("redis_streams", "tuned", needs=("redis", "hiredis")),
    "fastapi-polling": Rival(
        "polling", needs=("celery", "redis", "hiredis", "fastapi", "uvicorn", "httptools", "aiohttp")
    ),
    "taskiq-nats": Rival("taskiq_nats", needs=("taskiq", "taskiq_nats"), needs_redis=False),
    "http-sse": Rival("http_direct", needs=("starlette", "uvicorn", "httptools", "aiohttp"), needs_redis=False),
    "dynamo-nats": Rival("dynamo_runtime", "by_nats", needs=("dynamo",), needs_redis=False),
    "dynamo-tcp": Rival("dynamo_runtime", "by_tcp", needs=("dynamo",), needs_redis=False),
}
NAMES = (*OURS, *RIVALS)


async def _fast(now: Round, side: Measured) -> None:
    await now.streams(side, "fast", "streams")


async def _instant(now: Round, side: Measured) -> None:
    await now.streams(side, INSTANT, "instant streams")


MEASURES: tuple[Measure, ...] = (Round.unary_alone, Round.unary_many, _fast, _instant, Round.paced)
# Of sides that differ from another one in these alone.
SOME_MEASURES: dict[str, tuple[Measure, ...]] = {GATHERING: (Round.paced,), COALESCED: (_fast, _instant, Round.paced)}


def blocks(at_once: int) -> list[Block]:
    """What the table shows."""
    paced = [
        ("paced: late p50", "paced: token late by p50, ms"),
        ("paced: late p99", "paced: token late by p99, ms"),
        ("first token p50", "paced: first token p50, ms"),
        ("CPU per token", "paced: CPU µs/token"),
    ]
    unary = [
        ("1 token alone p50", "unary alone p50, µs"),
        (f"req/s, {at_once} at once", f"unary at {at_once}, req/s"),
        ("CPU per request", f"unary at {at_once}, CPU µs/req"),
    ]
    streams = [
        ("tokens/s, fast", "streams, tokens/s"),
        ("CPU per token", "streams, CPU µs/token"),
        ("tokens/s, instant", "instant streams, tokens/s"),
        ("CPU per token", "instant streams, CPU µs/token"),
    ]
    return [Block(MESH, unary), Block(MESH, streams), Block(MESH, paced), Block(GATHERING, paced)]


async def measure(rounds: int, only: Sequence[str] = (), sizes: Sizes = SIZES) -> Report:
    """Every measure on every side in turn. What cannot run is left out; a line on stderr says what to install.

    `only`: some of `NAMES`; nothing means all.

    Raises:
        BenchError: an answer of the mesh was not what it should be. A rival whose load fails is out from there on.
    """
    async with contextlib.AsyncExitStack() as stack:
        sides = [each async for each in _sides(stack, only)]
        report = Report("the mesh and what people would use instead", [side.name for side in sides])
        broken: set[str] = set()
        for side in sides:  # caches, pools and threads warm
            for warm in (Round.unary_many, _fast, _instant):
                await _load(warm, Round(Report("warm-up", []), sizes), side, broken)
        for number in range(rounds):
            for run in MEASURES:
                for side in sides if number % 2 == 0 else sides[::-1]:
                    if run not in SOME_MEASURES.get(side.name, MEASURES):
                        continue
                    await _load(run, Round(report, sizes), side, broken)
            _tell(f"round {number + 1} of {rounds} is done")
    return report


async def _load(run: Measure, now: Round, side: Measured, broken: set[str]) -> None:
    if side.name in broken:
        return
    try:
        await run(now, side)
    except Exception as error:
        if side.name not in RIVALS:
            raise
        broken.add(side.name)
        cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        _tell(f"{side.name} is out: {cause!r}")


async def _sides(stack: contextlib.AsyncExitStack, only: Sequence[str]) -> AsyncIterator[Measured]:
    """Started one after the other, the mesh first."""
    wanted = set(only or NAMES)
    _tell("starting the mesh")
    client, worker, broker_pid = await stack.enter_async_context(running_mesh("mesh"))
    yield Side(MESH, MeshAsker(client), worker, broker_pid)
    if GATHERING in wanted:
        running = running_mesh("mesh", MODEL, str(GATHER_MS))
        client, worker, broker_pid = await stack.enter_async_context(running)
        yield Side(GATHERING, MeshAsker(client), worker, broker_pid)
    if wanted & {FLOOR, COALESCED}:
        for side in await stack.enter_async_context(floor_sides()):
            if side.name in wanted:
                yield side
    for name, rival in RIVALS.items():
        if name not in wanted:
            continue
        if lacking := rival.missing():
            _tell(f"{name} is left out: {lacking}")
            continue
        _tell(f"starting {name}")
        yield await stack.enter_async_context(rival.open(name))


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
