"""A worker process of the scale benchmark: python -m tests.bench.scale_worker URL MODEL CAPACITY PACE…"""

import sys
from typing import Any

import uvloop

from mesh.worker.worker import Worker, WorkerOptions
from tests.bench.child import keep_stdout
from tests.bench.scale_engine import ScaleEngine
from tests.bench.worker import Respond, serve_mesh


async def serve(url: str, model: str, capacity: int, paces: list[str]) -> None:
    """Asked anything, say how many jobs were finished."""

    def finished(worker: Worker) -> Respond:
        async def respond(question: Any) -> object:
            return worker.statistics().finished

        return respond

    options = WorkerOptions(model=model, capacity=capacity, grace_s=5.0)
    await serve_mesh(url, ScaleEngine(capacity, paces), options, finished)


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
