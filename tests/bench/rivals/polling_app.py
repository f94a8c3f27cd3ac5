"""The FastAPI application in front of Celery: submit, and look how far it is.

python -m uvicorn tests.bench.rivals.polling_app:api
"""

from typing import Any

from celery.result import AsyncResult
from fastapi import FastAPI
from pydantic import BaseModel

from tests.bench.rivals import celery_app

api = FastAPI()


class Submit(BaseModel):
    """What is asked."""

    prompt: str
    max_tokens: int
    stream: bool


# Plain functions: Celery's client blocks, and FastAPI gives these a thread.
@api.post("/jobs")
def submit(body: Submit) -> dict[str, str]:
    return {"id": celery_app.show_progress.delay(body.prompt, body.max_tokens, body.stream).id}


@api.get("/jobs/{job}")
def look(job: str) -> dict[str, Any]:
    found = AsyncResult(job, app=celery_app.app)
    return {"state": found.state, "result": found.result}
