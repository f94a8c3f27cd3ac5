"""What is done with one dead letter, given what its job left behind. Pure. Carried out by control/deadletters/service.

A redriven job runs again under its own id. The last run's Result and events would end it at once, so they go
first; they are told from those of a later run by what they say themselves, never by when somebody looked. That is
what makes it safe to stop anywhere and begin again, also for two operators at once.
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

ANY_LANE = "any"  # the affinity token of a body that tells nothing about its prompt

# redrive: clear what the last run left, and store the request again. settle: the job ran again since it was buried,
# or finished, so only the letter goes. skip: it stays as it is. gone: somebody else was first. drop: it is removed.
Verb = Literal["redrive", "settle", "skip", "gone", "drop"]

# What decoders and encoders raise on hostile input.
_BROKEN = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """Which request a dead letter is of, and when it was given up. Instants are the server's."""

    request_sequence: int  # in the request stream; 0: the letter does not say
    stored_unix_ms: int
    buried_unix_ms: int


@dataclass(frozen=True, slots=True)
class Traces:
    """What is there of a job now."""

    is_queued: bool  # the very request that was buried is still in the queue
    is_deployed: bool  # its model's queue exists
    journal: Sequence[tuple[int, Event | None]]  # events and notes, by ascending sequence in the events stream
    result: Result | None
    result_sequence: int  # of whatever stands under the job's key; 0: nothing
    result_unix_ms: int  # when that was stored, by the server's clock


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a dead letter, and why. What goes is bounded: nobody's newer message is ever meant."""

    verb: Verb
    why: str
    journal_last: int = 0  # the job's events up to this sequence go; 0: there are none
    result_last: int = 0  # what stands under the job's key at this sequence goes; 0: nothing does


@dataclass(frozen=True, slots=True)
class Resubmission:
    """A request to store again."""

    affinity: str
    body: bytes
    message_id: str


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """One attempt as the journal tells of it."""

    number: int
    worker: str
    unix_ms: int  # when it began, by the worker's clock
    index: int  # output tokens that stood when it began
    tokens: int  # output tokens it added
    outcome: str  # how it ended; "" if nobody said


def decide(
    burial: RedrivePlan, request: Request | None, traces: Traces, now_unix_ms: int, has_deadline: bool
) -> Decision:
    """What redriving means for this letter now.

    Args:
        request: None: the body is no request.
        has_deadline: whether the job is to get a new deadline.
    """
    if not burial.request_sequence:
        return Decision("skip", "it does not say which request it is of; submit that by hand")
    if traces.is_queued:
        return Decision("skip", "its worker has not let go of it yet; try again in a moment")
    if _has_finished(traces):
        return Decision("settle", "its Result is there; only the dead letter goes")
    if _ran_later(burial, traces):
        return Decision("settle", "it ran again since it was buried; only the dead letter goes")
    if not traces.is_deployed:
        return Decision("skip", "its model has no queue on this mesh; start a worker for it first")
    if not has_deadline and _is_past(request, now_unix_ms):
        return Decision("skip", "its deadline has passed; --deadline S gives it a new one")
    why = "it runs again" if request is not None else "its body is no request, and will be refused"
    return Decision("redrive", why, traces.journal[-1][0] if traces.journal else 0, traces.result_sequence)


def submission(
    burial: RedrivePlan, key: JobKey, body: bytes, encoding: Encoding, deadline_unix_ms: int | None
) -> Resubmission:
    """The request of a letter, to be stored again.

    The message id names the request that was buried: repeated submissions of one burial collapse in the duplicate
    window, and neither the first submit nor a later burial of the job has the same.

    Args:
        deadline_unix_ms: None: as in the body.
    """
    tenant, job = key
    request, _ = read_request(body, encoding)
    affinity = affinity_token(request) if request is not None else ANY_LANE
    message_id = f"redrive-{burial.request_sequence}"
    if request is not None and request.id == job and deadline_unix_ms is None:
        return Resubmission(affinity, body, message_id)  # to the byte as it was submitted
    new = {"id": job} | ({} if deadline_unix_ms is None else {"deadline_unix_ms": deadline_unix_ms})
    again = _rewritten(body, encoding, new)
    if again is None and request is not None:  # a field nobody reads cannot be copied
        again = codec.encode(replace(request, **new), encoding)
    if again is None:  # no map, so no place for an id: the worker takes the name from the message id
        return Resubmission(affinity, body, f"{tenant}.{job}")
    return Resubmission(affinity, again, message_id)


def read_request(body: bytes, encoding: Encoding) -> tuple[Request | None, str]:
    """The request in a body, or None and why there is none."""
    try:
        request = codec.decode_request(body, encoding)
        validate(request)
    except RequestError as error:
        return None, str(error)
    return request, ""


def as_json(body: bytes, encoding: Encoding) -> bytes | None:
    """A body as indented JSON, whichever its encoding, with the fields nobody knows; None if it is neither."""
    try:
        return msgspec.json.format(msgspec.json.encode(_decoded(body, encoding), enc_hook=str), indent=2)
    except _BROKEN:
        return None


def attempts_of(events: Iterable[Event], notes: Iterable[Note]) -> list[AttemptSeen]:
    """The attempts that these events and notes of one job tell of, in order."""
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
    """Whether the job would expire at once."""
    return request is not None and request.deadline_unix_ms is not None and request.deadline_unix_ms <= now_unix_ms


def _has_finished(traces: Traces) -> bool:
    """Whether the job has its output: by a later run, or by a worker that went on while another gave it up."""
    results = [traces.result, *(event for _, event in traces.journal)]
    return any(isinstance(each, Result) and each.status == "finished" for each in results)


def _ran_later(burial: RedrivePlan, traces: Traces) -> bool:
    """Whether the job was run from another request after this one was given up."""
    if traces.result is not None and not _is_own_result(burial, traces.result, traces.result_unix_ms):
        return True
    own = [place for place, (_, event) in enumerate(traces.journal) if _is_own(burial, event)]
    after = [event for _, event in traces.journal[own[-1] + 1 :]] if own else [event for _, event in traces.journal]
    # The buried run's last event is its Result. Output without a beginning can only be a later run's.
    kinds = (Started, Result) if own else (Started, Delta, Result)
    return any(isinstance(event, kinds) for event in after)


def _is_own(burial: RedrivePlan, event: Event | None) -> bool:
    """Whether this event is surely of the run that was buried, or of one before."""
    if isinstance(event, Started):
        return event.sequence == burial.request_sequence
    return isinstance(event, Result) and _is_own_result(burial, event, 0)


def _is_own_result(burial: RedrivePlan, result: Result, stored_unix_ms: int) -> bool:
    """A Result says when its request was stored; one written by no worker may not, then its own age decides."""
    created = result.created_unix_ms or stored_unix_ms
    return created == burial.stored_unix_ms or 0 < created <= burial.buried_unix_ms


def _rewritten(body: bytes, encoding: Encoding, new: dict[str, Any]) -> bytes | None:
    """The body with these fields in it, and all of its others; None if it is no map."""
    try:
        fields = _decoded(body, encoding)
        return codec.encode(fields | new, encoding) if isinstance(fields, dict) else None
    except _BROKEN:
        return None


def _decoded(body: bytes, encoding: Encoding) -> Any:
    return msgspec.json.decode(body) if encoding == "json" else msgspec.msgpack.decode(body)
