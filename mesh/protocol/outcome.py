"""The facts of a delivered job, and the Result made of them. Pure."""

import msgspec

from mesh.job_key import JobKey, JobRef
from mesh.protocol.history import History
from mesh.protocol.messages import (
    DEFAULT_RESULT_TTL_MS,
    ErrorInfo,
    Request,
    Result,
    Status,
    Timing,
    Usage,
)
from mesh.protocol.validate import deadline_of


class JobFacts(msgspec.Struct, frozen=True):
    """The facts of a job at its delivery."""

    ref: JobRef
    worker: str
    stored_unix_ms: int
    received_unix_ms: int
    request: Request | None  # None: the body was no request

    @property
    def key(self) -> JobKey:
        return self.ref.key

    @property
    def deadline_unix_ms(self) -> int:
        return deadline_of(self.request, self.stored_unix_ms)

    @property
    def result_ttl_ms(self) -> int:
        return self.request.result_ttl_ms if self.request is not None else DEFAULT_RESULT_TTL_MS


NO_USAGE = Usage()


class Ending(msgspec.Struct, frozen=True):
    """How a job ended."""

    status: Status
    error: ErrorInfo | None = None
    usage: Usage = NO_USAGE
    finish_reason: str | None = None
    vectors: list[list[float]] | None = None  # an embedding, in place of text
    began_unix_ms: int = 0  # when the attempt that ended it began; 0: none did
    first_token_ms: int | None = None


def result_of(facts: JobFacts, history: History, ending: Ending, now_unix_ms: int) -> Result:
    """The Result of a job with this history; its text is that of its events."""
    usage, finished = ending.usage, ending.status == "finished"
    if not finished:
        usage = Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=history.index)
    return Result(
        id=facts.ref.id,
        tenant=facts.ref.tenant,
        model=facts.ref.model,
        status=ending.status,
        text=history.text if ending.vectors is None else "",
        embeddings=ending.vectors,
        finish_reason=ending.finish_reason if finished else None,
        usage=usage,
        error=ending.error,
        attempts=history.attempts,
        worker=facts.worker,
        timing=Timing(
            queued_ms=max(0, (ending.began_unix_ms or now_unix_ms) - facts.stored_unix_ms),
            first_token_ms=ending.first_token_ms,
            total_ms=max(0, now_unix_ms - facts.stored_unix_ms),
        ),
        created_unix_ms=facts.stored_unix_ms,
        finished_unix_ms=now_unix_ms,
        metadata=facts.request.metadata if facts.request is not None else None,
    )
