"""Converts signals to audit entries, and gives each entry the message id that makes its write idempotent. Pure.

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

NOBODY = "-"  # the tenant token in the subject of an entry without a tenant
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}", re.ASCII)

# For this time after a request was stored, the stream drops a repeated "accepted" entry: its duplicate window is two
# minutes. So the next worker may write the entry again in case the first one died before it did.
DEDUPLICATED_MS = 100_000

# A stored request has at most one entry of each of these events, from any process.
_ONCE = ("accepted", "refused", "ended", "buried")


def entry_of(signal: Signal, by: str, unix_ms: int) -> AuditEntry | None:
    """Returns the entry of a signal from worker `by`, or None for signals that are not audited."""
    match signal:
        case JobDelivered(delivered=times, queued_ms=queued_ms) if times == 1 or queued_ms < DEDUPLICATED_MS:
            return _about(signal, "accepted", by, unix_ms, queued_ms=signal.queued_ms)
        case AttemptStarted():
            is_taken = signal.taken_from not in ("", by)
            return _about(
                signal,
                "taken_over" if is_taken else "started",
                by,
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
                by,
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
            return _about(signal, "buried", by, unix_ms, code=signal.code, attempts=signal.attempts)
        case RequestRefused():
            return _about(signal, "refused", by, unix_ms, code=signal.code)
        case JobReturned():
            return _about(signal, "returned", by, unix_ms, cause=signal.reason, sequence=0)
        case _:
            return None


def ending_of(result: Result, ref: JobRef, by: str, cause: str) -> AuditEntry:
    """Returns the "ended" entry of a job that another process than a worker ended, with the `cause`."""
    return AuditEntry(
        event="ended",
        unix_ms=result.finished_unix_ms,
        by=by,
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
    """Returns the signal of an entry that no worker's signal caused, for observers. None: there is none."""
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
    """Returns the entry of a request refused before it became a job. The writer fills in `unix_ms` and `by`."""
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
    """Returns the `Nats-Msg-Id` of an entry. `mark` must be unique; it is the id of entries that never repeat."""
    if entry.sequence and entry.event in _ONCE:
        return f"{entry.event}-{entry.sequence}"
    if entry.sequence and entry.attempt:
        return f"attempt-{entry.sequence}-{entry.attempt}-{entry.by}"
    return mark


def tenant_token(entry: AuditEntry) -> str:
    """Returns the tenant token of an entry's subject."""
    return entry.tenant if is_token(entry.tenant) else NOBODY


def _about(
    signal: JobSignal,
    event: AuditEvent,
    by: str,
    unix_ms: int,
    **facts: Any,
) -> AuditEntry:
    return AuditEntry(
        event=event,
        unix_ms=unix_ms,
        by=by,
        tenant=signal.tenant,
        job=signal.job,
        model=signal.model,
        tier=signal.tier,
        **{"sequence": signal.sequence} | facts,
    )
