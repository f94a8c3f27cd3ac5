"""The taskiq application: what `taskiq worker` loads, and what the asker calls.

python -m taskiq worker --workers 1 tests.bench.rivals.taskiq_app:broker

BENCH_NATS_URL names the server.
"""

import json
import os

from taskiq import TaskiqEvents, TaskiqState
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

from mesh.engines.base import Work
from mesh.protocol.messages import Request
from tests.bench.engine import BenchEngine

URL = os.environ.get("BENCH_NATS_URL", "nats://127.0.0.1:4222")

broker = PullBasedJetStreamBroker(servers=[URL]).with_result_backend(NATSObjectStoreResultBackend(servers=[URL]))
engine = BenchEngine()
times: dict[str, tuple[float, float]] = {}


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(state: TaskiqState) -> None:
    await engine.start()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(state: TaskiqState) -> None:
    await engine.stop()


@broker.task
async def generate(job: str, prompt: str, max_tokens: int, subject: str | None) -> dict[str, object]:
    """Each token to a subject of the job, if one is named, then the whole as the task's result."""
    text = ""
    async for chunk in engine.generate(Work(job, Request(prompt=prompt, max_tokens=max_tokens, temperature=0), 0)):
        text += chunk.text
        if subject is not None:
            piece = {"text": chunk.text, "token_ids": list(chunk.token_ids)}
            await broker.client.publish(subject, json.dumps(piece).encode())
    if subject is not None:
        await broker.client.publish(subject, b'{"done": true}')
    times.update(engine.take_times())
    return {"text": text, "times": times.pop(job, None)}
