"""A worker process of the scale benchmark: python -m tests.bench.scale_worker URL MODEL CAPACITY PACE…"""

import asyncio
import sys
from typing import Any

import uvloop

from mesh.broker.options import ConnectOptions
from mesh.control.host import host_worker
from mesh.worker.worker import Worker, WorkerOptions
from tests.bench.child import answer, keep_stdout
from tests.bench.scale_engine import ScaleEngine


async def serve(url: str, model: str, capacity: int, paces: list[str]) -> None:
    """Serve until the parent closes our stdin; asked anything, say how many jobs were finished."""
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    options = WorkerOptions(model=model, capacity=capacity, grace_s=5.0)
    engine = ScaleEngine(capacity, paces)
    serving = asyncio.create_task(
        host_worker(lambda: engine, ConnectOptions(servers=(url,), name="bench"), options, on_ready=ready.set_result)
    )
    waits: set[asyncio.Future[Any]] = {serving, ready}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        worker = ready.result()

        async def respond(question: Any) -> object:
            return worker.statistics().finished

        await answer(respond)
        worker.drain()
    await serving


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
