"""The Celery application: what `celery worker` loads, and what the askers call.

python -m celery -A tests.bench.rivals.celery_app worker --pool threads --concurrency 128

BENCH_REDIS_URL names the broker, which is the result backend too.
"""

import json
import os
import time

import redis
from celery import Celery, Task

from tests.bench.rivals.plain import Answer, due_from, tokens_of

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
RESULT_S = 3600

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,  # a worker that dies loses no task …
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,  # … and holds none that it cannot start: both from "Optimizing", "Reserve one task"
    broker_connection_retry_on_startup=True,
    result_expires=RESULT_S,
)
channels = redis.Redis.from_url(URL, max_connections=1024)


@app.task
def publish_tokens(prompt: str, n_tokens: int, channel: str | None) -> Answer:
    """Each token to a Redis channel, if one is named, then the whole as the task's result."""
    entered_s = time.monotonic()
    due_s, text = due_from(entered_s), ""
    for piece, token_ids in tokens_of(prompt, n_tokens, due_s):
        text += piece
        if channel is not None:
            channels.publish(channel, json.dumps({"text": piece, "token_ids": token_ids}))
    if channel is not None:
        channels.publish(channel, json.dumps({"done": True}))
    return {"text": text, "entered_s": entered_s, "due_s": due_s}


@app.task(bind=True)
def show_progress(self: Task, prompt: str, n_tokens: int, is_streamed: bool) -> Answer:
    """The text so far as the task's state, for those who poll it, then the whole as its result."""
    entered_s = time.monotonic()
    due_s, text, ids = due_from(entered_s), "", []
    for piece, token_ids in tokens_of(prompt, n_tokens, due_s):
        text += piece
        ids += token_ids
        if is_streamed:
            self.update_state(state="PROGRESS", meta={"text": text, "token_ids": ids})
    return {"text": text, "token_ids": ids, "entered_s": entered_s, "due_s": due_s}
