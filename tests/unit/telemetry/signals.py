"""Signals of a worker, with defaults for the fields that a test does not set."""

from typing import Any

from mesh.signals import AttemptStarted, EngineEnded, JobDelivered, JobEnded

ABOUT: dict[str, Any] = {"job": "j1", "tenant": "acme", "model": "demo", "tier": "standard"}


def delivered(**fields: Any) -> JobDelivered:
    return JobDelivered(**(ABOUT | {"delivered": 1, "queued_ms": 250} | fields))


def started(**fields: Any) -> AttemptStarted:
    return AttemptStarted(**(ABOUT | {"attempt": 1, "index": 0, "taken_from": ""} | fields))


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
    return EngineEnded(**(ABOUT | known | fields))


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
    return JobEnded(**(ABOUT | known | fields))
