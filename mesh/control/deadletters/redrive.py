"""Decides the action for one dead letter from the stored records of its job. Pure.

A redriven job runs again under its own id. The last run's Result and events would end it at once, so they are removed
first. Their contents tell them from records of a later run; the time of the read does not matter. So a redrive can
stop anywhere and start again, even with two operators at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from mesh.errors import RequestError
from mesh.job_key import JobKey
from mesh.policies.affinity import affinity_token
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Delta, Event, Note, Request, Result, Started
from mesh.protocol.validate import validate

ANY_LANE = "any"  # the affinity token of a body without a readable prompt

# Redrive: the last run's records are removed and the request is stored again. Settle: the job ran again or finished, so
# only the letter is removed. Skip: the letter stays. Gone: another operator was first. Drop: the letter is removed.
Verb = Literal["redrive", "settle", "skip", "gone", "drop"]

# Errors that decoders and encoders raise on hostile input.
_BROKEN = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """The request of a dead letter and the time of its burial, by the server's clock."""

    request_sequence: int  # in the request stream; 0: unknown
    stored_unix_ms: int
    buried_unix_ms: int


@dataclass(frozen=True, slots=True)
class Traces:
    """The stored records of a job."""

    is_queued: bool  # the very request that was buried is still in the queue
    is_deployed: bool  # its model's queue exists
    journal: Sequence[tuple[int, Event | None]]  # events and notes, by ascending sequence in the events stream
    result: Result | None
    result_sequence: int  # of the value under the job's key; 0: none
    result_unix_ms: int  # time of its storage, by the server's clock


@dataclass(frozen=True, slots=True)
class Decision:
    """The action for a dead letter, and its reason. Removals are bounded by sequence, so newer messages stay."""

    verb: Verb
    why: str
    journal_last: int = 0  # the job's events up to this sequence are removed; 0: none
    result_last: int = 0  # the value under the job's key is removed at this sequence; 0: none


@dataclass(frozen=True, slots=True)
class Resubmission:
    """A request to store again."""

    affinity: str
    body: bytes
    message_id: str


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """One attempt, from the journal."""

    number: int
    worker: str
    unix_ms: int  # its start, by the worker's clock
    index: int  # output tokens when it started
    tokens: int  # output tokens it added
    outcome: str  # how it ended; "" if unknown


def decide(
    burial: RedrivePlan, request: Request | None, traces: Traces, now_unix_ms: int, has_deadline: bool
) -> Decision:
    """Returns the action of a redrive for this letter now.

    Args:
        request: None: the body is no request.
        has_deadline: whether the job is to get a new deadline.
    """
    if not burial.request_sequence:
        return Decision("skip", "the letter does not name its request; submit the request by hand")
    if traces.is_queued:
        return Decision("skip", "its worker has not released it yet; try again in a moment")
    if _has_finished(traces):
        return Decision("settle", "its Result is stored; only the dead letter is removed")
    if _ran_later(burial, traces):
        return Decision("settle", "it ran again since it was buried; only the dead letter is removed")
    if not traces.is_deployed:
        return Decision("skip", "its model has no queue on this mesh; start a worker for it first")
    if not has_deadline and _is_past(request, now_unix_ms):
        return Decision("skip", "its deadline has passed; --deadline S gives it a new one")
    why = "it runs again" if request is not None else "its body is not a request, and will be refused"
    return Decision("redrive", why, traces.journal[-1][0] if traces.journal else 0, traces.result_sequence)


def submission(
    burial: RedrivePlan, key: JobKey, body: bytes, encoding: Encoding, deadline_unix_ms: int | None
) -> Resubmission:
    """Returns the request of a letter, to be stored again.

    The message id names the buried request. So JetStream drops repeated submissions of one letter, but not those of
    a later letter of the same job.

    Args:
        deadline_unix_ms: None: as in the body.
    """
    tenant, job = key
    request, _ = read_request(body, encoding)
    affinity = affinity_token(request) if request is not None else ANY_LANE
    message_id = f"redrive-{burial.request_sequence}"
    if request is not None and request.id == job and deadline_unix_ms is None:
        return Resubmission(affinity, body, message_id)  # the bytes as they were submitted
    new = {"id": job} | ({} if deadline_unix_ms is None else {"deadline_unix_ms": deadline_unix_ms})
    again = _rewritten(body, encoding, new)
    if again is None and request is not None:  # a field that cannot be decoded cannot be copied
        again = codec.encode(replace(request, **new), encoding)
    if again is None:  # not a map, so it has no id field; the worker takes the id from the message id
        return Resubmission(affinity, body, f"{tenant}.{job}")
    return Resubmission(affinity, again, message_id)


def read_request(body: bytes, encoding: Encoding) -> tuple[Request | None, str]:
    """Returns the request in a body, or None and the reason."""
    try:
        request = codec.decode_request(body, encoding)
        validate(request)
    except RequestError as error:
        return None, str(error)
    return request, ""


def as_json(body: bytes, encoding: Encoding) -> bytes | None:
    """Returns a JSON or MessagePack body as indented JSON, with unknown fields; None for other bodies."""
    try:
        return msgspec.json.format(msgspec.json.encode(_decoded(body, encoding), enc_hook=str), indent=2)
    except _BROKEN:
        return None


def attempts_of(events: Iterable[Event], notes: Iterable[Note]) -> list[AttemptSeen]:
    """Returns the attempts in one job's events and notes, in order."""
    outcomes = {note.attempt: f"{note.verdict}: {note.reason}" if note.reason else note.verdict for note in notes}
    begun: dict[int, Started] = {}
    tokens: dict[int, int] = {}
    for event in events:
        if isinstance(event, Started) and not event.closing:
            begun[event.attempt] = event
        elif isinstance(event, Delta):
            tokens[event.attempt] = tokens.get(event.attempt, 0) + len(event.token_ids)
    return [
        AttemptSeen(number, each.worker, each.unix_ms, each.index, tokens.get(number, 0), outcomes.get(number, ""))
        for number, each in sorted(begun.items())
    ]


def _is_past(request: Request | None, now_unix_ms: int) -> bool:
    """Returns whether the job would expire at once."""
    return request is not None and request.deadline_unix_ms is not None and request.deadline_unix_ms <= now_unix_ms


def _has_finished(traces: Traces) -> bool:
    """Returns whether the job has its output: from a later run, or from a worker that outlived the burial."""
    results = [traces.result, *(event for _, event in traces.journal)]
    return any(isinstance(each, Result) and each.status == "finished" for each in results)


def _ran_later(burial: RedrivePlan, traces: Traces) -> bool:
    """Returns whether the job ran from another request after the burial."""
    if traces.result is not None and not _is_own_result(burial, traces.result, traces.result_unix_ms):
        return True
    own = [place for place, (_, event) in enumerate(traces.journal) if _is_own(burial, event)]
    after = [event for _, event in traces.journal[own[-1] + 1 :]] if own else [event for _, event in traces.journal]
    # The buried run's last event is its Result, so output without a start is from a later run.
    kinds = (Started, Result) if own else (Started, Delta, Result)
    return any(isinstance(event, kinds) for event in after)


def _is_own(burial: RedrivePlan, event: Event | None) -> bool:
    """Returns whether the event is certainly from the buried run or an earlier one."""
    if isinstance(event, Started):
        return event.sequence == burial.request_sequence
    return isinstance(event, Result) and _is_own_result(burial, event, 0)


def _is_own_result(burial: RedrivePlan, result: Result, stored_unix_ms: int) -> bool:
    """Compares the storage time of the Result's request; without one, the Result's own."""
    created = result.created_unix_ms or stored_unix_ms
    return created == burial.stored_unix_ms or 0 < created <= burial.buried_unix_ms


def _rewritten(body: bytes, encoding: Encoding, new: dict[str, Any]) -> bytes | None:
    """Returns the body with the new fields set and all others kept; None if it is not a map."""
    try:
        fields = _decoded(body, encoding)
        return codec.encode(fields | new, encoding) if isinstance(fields, dict) else None
    except _BROKEN:
        return None


def _decoded(body: bytes, encoding: Encoding) -> Any:
    return msgspec.json.decode(body) if encoding == "json" else msgspec.msgpack.decode(body)
