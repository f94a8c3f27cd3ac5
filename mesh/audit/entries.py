"""What the audit says of what happened: the entry of a signal, and the id under which it is written once. Pure.

Names, codes and numbers only: an error's message may hold a piece of a prompt, so it stays out.
Source: nats/PROTOCOL.md, "Audit".
"""

import re
from typing import Any

from mesh.errors import MeshError, RefusedError
from mesh.job_key import JobRef
from mesh.protocol.messages import AuditEntry, AuditEvent, Result
from mesh.protocol.subjects import is_token
from mesh.signals import (
    AttemptStarted,
    JobBuried,
    JobDelivered,
    JobEnded,
    JobEndedUnrun,
    JobReturned,
    JobSignal,
    RequestAccepted,
    RequestDenied,
    RequestRefused,
    Signal,
)

NOBODY = "-"  # stands for the tenant in the subject of what is no tenant's
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}", re.ASCII)

# For so long after it was stored, a request's acceptance is surely not written again by whoever tells it once more:
# less than the two minutes in which a stream knows ids. So the first worker may die with the word on its lips.
TOLD_APART_MS = 100_000

# Of these there is one for a stored request, whoever tells it and however often.
_ONCE = ("accepted", "refused", "ended", "buried")


def entry_of(signal: Signal, who: str, unix_ms: int) -> AuditEntry | None:
    """What a worker of this name says of a signal; None: nothing."""
    match signal:
        case JobDelivered(delivered=times, queued_ms=queued_ms) if times == 1 or queued_ms < TOLD_APART_MS:
            return _about(signal, "accepted", who, unix_ms, queued_ms=signal.queued_ms)
        case AttemptStarted():
            is_taken = signal.taken_from not in ("", who)
            return _about(
                signal,
                "taken_over" if is_taken else "started",
                who,
                unix_ms,
                attempt=signal.attempt,
                index=signal.index,
                taken_from=signal.taken_from,
                cause=signal.cause or "",
            )
        case JobEnded():
            return _about(
                signal,
                "ended",
                who,
                unix_ms,
                status=signal.status,
                code=signal.code or "",
                attempts=signal.attempts,
                prompt_tokens=signal.prompt_tokens,
                cached_tokens=signal.cached_tokens,
                tokens=signal.tokens,
                queued_ms=signal.queued_ms,
                first_token_ms=signal.first_token_ms,
                total_ms=signal.total_ms,
            )
        case JobBuried():
            return _about(signal, "buried", who, unix_ms, code=signal.code, attempts=signal.attempts)
        case RequestRefused():
            return _about(signal, "refused", who, unix_ms, code=signal.code)
        case JobReturned():
            return _about(signal, "returned", who, unix_ms, cause=signal.reason, sequence=0)
        case _:
            return None


def ending_of(result: Result, ref: JobRef, who: str, cause: str) -> AuditEntry:
    """What is said of a job that no worker ended. `cause`: why somebody else did."""
    return AuditEntry(
        event="ended",
        unix_ms=result.finished_unix_ms,
        by=who,
        tenant=result.tenant,
        job=result.id,
        model=result.model,
        tier=ref.tier,
        sequence=ref.sequence,
        cause=cause,
        status=result.status,
        code=result.error.code if result.error is not None else "",
        attempts=result.attempts,
        prompt_tokens=result.usage.prompt_tokens,
        cached_tokens=result.usage.cached_tokens,
        tokens=result.usage.completion_tokens,
        queued_ms=result.timing.queued_ms,
        first_token_ms=result.timing.first_token_ms,
        total_ms=result.timing.total_ms,
    )


def signal_of(entry: AuditEntry) -> Signal | None:
    """An entry that no worker's signal is behind, for those who watch; None: they are told nothing."""
    ref = JobRef(entry.job, entry.tenant, entry.model, entry.tier, entry.sequence)
    match entry.event:
        case "accepted":
            return RequestAccepted(ref)
        case "refused":
            return RequestDenied(tenant=entry.tenant, model=entry.model, code=entry.code)
        case "ended":
            return JobEndedUnrun(ref, entry.status, entry.code, entry.cause, entry.total_ms or 0)
        case _:
            return None


def refusal_of(error: MeshError, tenant: str, model: str) -> AuditEntry:
    """What is said of a request that was refused before it was a job; when and by whom is left open."""
    field = error.field if isinstance(error, RefusedError) and error.field is not None else ""
    return AuditEntry(
        event="refused",
        unix_ms=0,
        by="",
        tenant=tenant,
        model=model,
        code=error.code,
        field=field if _FIELD.fullmatch(field) else "",
    )


def message_id(entry: AuditEntry, mark: str) -> str:
    """`Nats-Msg-Id` of an entry; `mark` is another for each that can be told only once."""
    if entry.sequence and entry.event in _ONCE:
        return f"{entry.event}-{entry.sequence}"
    if entry.sequence and entry.attempt:
        return f"attempt-{entry.sequence}-{entry.attempt}-{entry.by}"
    return mark


def tenant_token(entry: AuditEntry) -> str:
    """What stands for its tenant in an entry's subject."""
    return entry.tenant if is_token(entry.tenant) else NOBODY


def _about(
    signal: JobSignal,
    event: AuditEvent,
    who: str,
    unix_ms: int,
    **facts: Any,
) -> AuditEntry:
    return AuditEntry(
        event=event,
        unix_ms=unix_ms,
        by=who,
        tenant=signal.tenant,
        job=signal.job,
        model=signal.model,
        tier=signal.tier,
        **{"sequence": signal.sequence} | facts,
    )
