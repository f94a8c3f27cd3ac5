"""What happened to one job, in order of time, as an operator reads it. Pure. Used by control/jobs/job_detail."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from mesh.protocol.messages import Delta, Event, LaterEvent, Note, Request, Result, Started

# What a request says beside its input.
_INPUTS = ("id", "prompt", "messages", "prompt_token_ids", "input")

Kind = Literal["stored", "started", "tokens", "note", "closed", "result", "buried", "later"]


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a job's life, by the server's clock."""

    at_ms: int  # since its request was stored, or since the first moment if that is not known
    kind: Kind
    attempt: int = 0
    worker: str = ""
    index: int = 0  # tokens that stood before it
    tokens: int = 0  # output tokens that came with it
    events: int = 1  # how many this moment stands for
    text: str = ""  # for `note`, `result` and `buried`: how, and why


class AttemptSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a job."""

    number: int
    worker: str
    at_ms: int  # as `Moment.at_ms`
    index: int  # output tokens that stood when it began
    tokens: int  # that it added
    isolated: bool  # nothing else ran in its worker
    outcome: str  # how it ended, or that it runs
    took_ms: int | None  # until its last sign; None: it gave none


class RequestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, without what it is about."""

    input: str  # its kind and size
    bytes: int
    encoding: str
    fields: dict[str, Any]  # those that are not their defaults


Said = tuple[int, Event | LaterEvent | Note]  # when it was stored, in Unix ms by the server's clock, and what


def timeline(story: Sequence[Said], stored_unix_ms: int) -> list[TimelineEntry]:
    """Every event and note, the oldest first, from the moment the request was stored.

    Args:
        stored_unix_ms: 0: not known.
    """
    start_ms = stored_unix_ms or (story[0][0] if story else 0)
    first = [TimelineEntry(at_ms=0, kind="stored")] if stored_unix_ms else []
    return first + [_moment(unix_ms - start_ms, said) for unix_ms, said in story]


def folded(found: Iterable[TimelineEntry]) -> list[TimelineEntry]:
    """The same, with runs of tokens as one moment each, after the first of its attempt."""
    told: list[TimelineEntry] = []
    for each in found:
        last = told[-1] if told else None
        is_run = last is not None and last.kind == each.kind == "tokens" and last.attempt == each.attempt
        if last is not None and is_run and len(told) > 1 and told[-2].kind == "tokens":
            told[-1] = msgspec.structs.replace(
                each, index=last.index, tokens=last.tokens + each.tokens, events=last.events + 1
            )
        else:
            told.append(each)
    return told


def attempts(story: Sequence[Said], stored_unix_ms: int, lost: Iterable[str]) -> list[AttemptSummary]:
    """The attempts that the journal still tells of, in order.

    Args:
        lost: workers that are gone.
    """
    start_ms = stored_unix_ms or (story[0][0] if story else 0)
    begun: dict[int, tuple[int, Started]] = {}
    tokens: dict[int, int] = {}
    last_ms: dict[int, int] = {}
    notes: dict[int, str] = {}
    result: Result | None = None
    for unix_ms, said in story:
        if isinstance(said, Result):
            result = said
        elif isinstance(said, Note):
            notes[said.attempt] = f"{said.verdict}: {said.reason}" if said.reason else said.verdict
        elif isinstance(said, Delta):
            tokens[said.attempt] = tokens.get(said.attempt, 0) + len(said.token_ids)
            last_ms[said.attempt] = unix_ms
        elif isinstance(said, Started) and not said.closing:
            begun[said.attempt] = unix_ms, said
    newest, gone = max(begun, default=0), set(lost)

    def outcome(number: int, worker: str) -> str:
        if result is not None and number == newest:
            return result.status
        if number in notes:
            return notes[number]
        if number < newest or worker in gone:
            return "lost with its worker: no word of how it ended"
        return "runs"

    return [
        AttemptSummary(
            number=number,
            worker=each.worker,
            at_ms=unix_ms - start_ms,
            index=each.index,
            tokens=tokens.get(number, 0),
            isolated=each.isolated,
            outcome=outcome(number, each.worker),
            took_ms=last_ms[number] - unix_ms if number in last_ms else None,
        )
        for number, (unix_ms, each) in sorted(begun.items())
    ]


def summary(request: Request | None, error: str, size_bytes: int, encoding: str) -> RequestSummary:
    """A request without its prompt.

    Args:
        error: why the body is no request, if it is none.
    """
    if request is None:
        return RequestSummary(input=f"no request: {error}", bytes=size_bytes, encoding=encoding, fields={})
    fields = msgspec.to_builtins(request)
    for name in _INPUTS:
        fields.pop(name, None)
    return RequestSummary(input=_input(request), bytes=size_bytes, encoding=encoding, fields=fields)


def prompt_of(request: Request) -> Any:
    """What the request is about, as it was sent."""
    fields: dict[str, Any] = msgspec.to_builtins(request)
    return next((fields[name] for name in _INPUTS[1:] if name in fields), None)


def _input(request: Request) -> str:
    if request.prompt is not None:
        return f"prompt of {len(request.prompt):,} characters"
    if request.messages is not None:
        size = sum(len(each.content) for each in request.messages)
        return f"{len(request.messages)} chat messages of {size:,} characters"
    if request.prompt_token_ids is not None:
        return f"prompt of {len(request.prompt_token_ids):,} token ids"
    texts = [request.input] if isinstance(request.input, str) else request.input or []
    return f"{len(texts)} texts of {sum(map(len, texts)):,} characters to embed"


def _moment(at_ms: int, said: Event | LaterEvent | Note) -> TimelineEntry:
    if isinstance(said, Started):
        kind: Kind = "closed" if said.closing else "started"
        text = "alone in its worker" if said.isolated else ""
        return TimelineEntry(
            at_ms=at_ms, kind=kind, attempt=said.attempt, worker=said.worker, index=said.index, text=text
        )
    if isinstance(said, Delta):
        return TimelineEntry(
            at_ms=at_ms, kind="tokens", attempt=said.attempt, index=said.index, tokens=len(said.token_ids)
        )
    if isinstance(said, Note):
        text = f"{said.verdict}: {said.reason}" if said.reason else said.verdict
        return TimelineEntry(at_ms=at_ms, kind="note", attempt=said.attempt, text=text)
    if isinstance(said, LaterEvent):
        text = f"an event {said.type!r} of a later version of mesh"
        return TimelineEntry(at_ms=at_ms, kind="later", attempt=said.attempt, index=said.index, text=text)
    reason = ""
    if said.error is not None:
        code = "" if said.error.code == said.status else f"{said.error.code}: "
        reason = f", {code}{said.error.message}"
    return TimelineEntry(
        at_ms=at_ms, kind="result", attempt=said.attempts, worker=said.worker, text=f"{said.status}{reason}"
    )
