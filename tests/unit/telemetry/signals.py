"""Signals of a worker, with defaults for the fields that a test does not set."""

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from mesh.job_key import JobRef
from mesh.signals import AttemptStarted, EngineEnded, JobDelivered, JobEnded

T = TypeVar("T")

REF = JobRef("j1", "acme", "demo", "standard")


def ref(**names: Any) -> JobRef:
    """REF with some other names."""
    return replace(REF, **names)


def told(kind: Callable[..., T], known: dict[str, Any], fields: dict[str, Any]) -> T:
    """A signal of the job REF; `fields` may name its `ref`."""
    return kind(**({"ref": REF} | known | fields))


def delivered(**fields: Any) -> JobDelivered:
    return told(JobDelivered, {"delivered": 1, "queued_ms": 250}, fields)


def started(**fields: Any) -> AttemptStarted:
    return told(AttemptStarted, {"attempt": 1, "index": 0, "taken_from": ""}, fields)


def engine_ended(**fields: Any) -> EngineEnded:
    known = {
        "attempt": 1,
        "operation": "chat",
        "engine": "simulator",
        "outcome": "stop",
        "is_finished": True,
        "seconds": 2.0,
        "first_token_s": 0.5,
        "prompt_tokens": 7,
        "cached_tokens": 3,
        "tokens": 16,
    }
    return told(EngineEnded, known, fields)


def ended(**fields: Any) -> JobEnded:
    known = {
        "status": "finished",
        "attempts": 1,
        "prompt_tokens": 7,
        "cached_tokens": 3,
        "tokens": 16,
        "queued_ms": 250,
        "first_token_ms": 800,
        "total_ms": 2300,
        "code": None,
    }
    return told(JobEnded, known, fields)
