"""Converts a job's events and notes to a timeline for operators. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from mesh.protocol.messages import Delta, Event, LaterEvent, Note, Request, Result, Started

# The fields of a request beside its input.
_INPUTS = ("id", "prompt", "messages", "prompt_token_ids", "input")

Kind = Literal["stored", "started", "tokens", "note", "closed", "result", "buried", "later"]


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a job's life, by the server's clock."""

    at_ms: int  # since its request was stored; else since its first entry
    kind: Kind
    attempt: int = 0
    worker: str = ""
    index: int = 0  # output tokens before it
    tokens: int = 0  # output tokens in it
    events: int = 1  # number of events in this entry
    text: str = ""  # for `note`, `result` and `buried`: the outcome and its reason


class AttemptSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a job."""

    number: int
    worker: str
    at_ms: int  # as `TimelineEntry.at_ms`
    index: int  # output tokens when it started
    tokens: int  # output tokens that it added
    isolated: bool  # no other job ran in its worker
    outcome: str  # how it ended, or that it runs
    took_ms: int | None  # until its last event; None: there is none


class RequestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A request without its prompt."""

    input: str  # its kind and size
    bytes: int
    encoding: str
    fields: dict[str, Any]  # without those at their defaults


Said = tuple[int, Event | LaterEvent | Note]  # time of storage in Unix ms by the server's clock, and the message


def timeline(story: Sequence[Said], stored_unix_ms: int) -> list[TimelineEntry]:
    """Returns every event and note, the oldest first, with times since the request was stored.

    Args:
        stored_unix_ms: 0: not known.
    """
    start_ms = stored_unix_ms or (story[0][0] if story else 0)
    first = [TimelineEntry(at_ms=0, kind="stored")] if stored_unix_ms else []
    return first + [_moment(unix_ms - start_ms, said) for unix_ms, said in story]


def folded(found: Iterable[TimelineEntry]) -> list[TimelineEntry]:
    """Joins runs of tokens to one entry each, after the first token of an attempt."""
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
    """Returns the attempts in the journal, in order.

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
            return "lost with its worker; its outcome is unknown"
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
    """Summarizes a request without its prompt.

    Args:
        error: why the body is not a request; "" if it is one.
    """
    if request is None:
        return RequestSummary(input=f"no request: {error}", bytes=size_bytes, encoding=encoding, fields={})
    fields = msgspec.to_builtins(request)
    for name in _INPUTS:
        fields.pop(name, None)
    return RequestSummary(input=_input(request), bytes=size_bytes, encoding=encoding, fields=fields)


def prompt_of(request: Request) -> Any:
    """Returns the prompt, messages or texts of a request, as sent."""
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
