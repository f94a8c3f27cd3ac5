"""The names and attributes of the mesh's spans. They never hold a prompt or an output. Pure.

Source: OpenTelemetry's semantic conventions for generative AI (gen_ai.*) and messaging (messaging.*). Attributes
outside these conventions begin with `mesh.`.
"""

from mesh.protocol.messages import Request, Result
from mesh.signals import AttemptStarted, EngineEnded, JobEnded, Operation

Value = str | int | float | bool | list[str]
Attributes = dict[str, Value]

PROVIDER = "mesh"


def operation_of(request: Request) -> Operation:
    """Return a request's operation, in the terms of the conventions."""
    if request.input is not None:
        return "embeddings"
    return "chat" if request.messages is not None else "text_completion"


def of_request(request: Request, job: str, model: str, tier: str, tenant: str) -> Attributes:
    """Return the attributes of the client's span of a whole job, at its start."""
    found: Attributes = {
        "gen_ai.operation.name": operation_of(request),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.request.stream": request.stream,
        **of_job(job, tier, tenant),
    }
    known: dict[str, Value | None] = {
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.seed": request.seed,
        "gen_ai.request.top_p": request.top_p if request.top_p != 1.0 else None,
    }
    return found | {name: value for name, value in known.items() if value is not None}


def of_job(job: str, tier: str, tenant: str) -> Attributes:
    """Return the attributes that identify a job."""
    return {"mesh.job": job, "mesh.tier": tier, "mesh.tenant": tenant}


def of_message(operation: str, job: str, tenant: str, model: str) -> Attributes:
    """Return the attributes of a request's way through NATS. `operation`: send, receive or process."""
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.destination.name": model,
        "messaging.message.id": f"{tenant}.{job}",
    }


def of_result(result: Result) -> Attributes:
    """Return the attributes of a job's end, as its client sees it."""
    return {
        "mesh.status": result.status,
        "mesh.attempts": result.attempts,
        "mesh.worker": result.worker,
        "gen_ai.response.model": result.model,
        "gen_ai.usage.input_tokens": result.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": result.usage.completion_tokens,
        **({"gen_ai.response.finish_reasons": [result.finish_reason]} if result.finish_reason else {}),
        **({"error.type": result.error.code} if result.error is not None else {}),
    }


def of_attempt(signal: AttemptStarted, worker: str) -> Attributes:
    """Return the attributes of one attempt; after a takeover also the previous worker and the cause."""
    found: Attributes = {"mesh.worker": worker, "mesh.attempt": signal.attempt, "mesh.resumed_at_tokens": signal.index}
    if signal.cause is not None:
        found |= {"mesh.takeover.from": signal.taken_from, "mesh.takeover.cause": signal.cause}
    return found


def of_engine(signal: EngineEnded) -> Attributes:
    """Return the attributes of one attempt's time in the engine."""
    found: Attributes = {
        "gen_ai.operation.name": signal.operation,
        "gen_ai.provider.name": signal.engine,
        "gen_ai.request.model": signal.model,
        "gen_ai.usage.output_tokens": signal.tokens,
    }
    if signal.is_finished:
        found["gen_ai.usage.input_tokens"] = signal.prompt_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = signal.cached_tokens
        found["gen_ai.response.finish_reasons"] = [signal.outcome]
    else:
        found["mesh.stopped"] = signal.outcome
    if signal.first_token_s is not None:
        found["gen_ai.response.time_to_first_chunk"] = signal.first_token_s
    return found


def of_end(signal: JobEnded) -> Attributes:
    """Return the attributes of a job's end, in the worker that ended it."""
    found: Attributes = {"mesh.status": signal.status, "mesh.attempts": signal.attempts}
    return found | ({"error.type": signal.code} if signal.code is not None else {})
