"""The worker processes of the benchmark.

python -m tests.bench.worker floor URL                 the bench engine on the floor
python -m tests.bench.worker mesh URL [MODEL MS]       the same behind the mesh, whose tokens gather for MS
python -m tests.bench.worker vllm URL MODEL [MS]       vLLM behind the mesh, likewise
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from mesh.broker.transport.options import ConnectOptions
from mesh.engines.base import Engine
from mesh.engines.registry import create
from mesh.hosting.host import host_worker
from mesh.worker.worker import Worker, WorkerOptions
from tests.bench.child import answer, keep_stdout
from tests.bench.engine import BenchEngine
from tests.bench.floor import FloorWorker, connect

MODEL = "bench"

Respond = Callable[[Any], Awaitable[object]]


async def serve_mesh(url: str, engine: Engine, options: WorkerOptions, respond: Callable[[Worker], Respond]) -> None:
    """Serve until the parent closes our stdin; `respond` makes what answers its questions."""
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        host_worker(lambda: engine, ConnectOptions(servers=(url,), name="bench"), options, on_ready=ready.set_result)
    )
    waits: set[asyncio.Future[Any]] = {serving, ready}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        worker = ready.result()
        await answer(respond(worker))
        worker.drain()
    await serving


async def _gathering(url: str, engine: Engine, coalesce_ms: str) -> None:
    options = WorkerOptions(model=MODEL, grace_s=5.0, window_s=float(coalesce_ms) / 1000)
    await serve_mesh(url, engine, options, lambda worker: _responder(engine))


async def serve_floor(url: str) -> None:
    engine = BenchEngine()
    await engine.start()
    async with await connect(url) as connection:
        await FloorWorker(connection, engine).start()
        await answer(_responder(engine))
    await engine.stop()


def _responder(engine: Engine) -> Respond:
    async def respond(question: Any) -> object:
        if question == "times" and isinstance(engine, BenchEngine):
            return engine.take_times()
        if question == "capacity":
            return engine.info.capacity
        return None

    return respond


def main(kind: str, url: str, model: str = MODEL, coalesce_ms: str = "0") -> None:
    keep_stdout()
    match kind:
        case "mesh":
            uvloop.run(_gathering(url, BenchEngine(), coalesce_ms))
        case "vllm":
            uvloop.run(_gathering(url, create("vllm", model=model), coalesce_ms))
        case "floor":
            uvloop.run(serve_floor(url))


if __name__ == "__main__":
    main(*sys.argv[1:])
