"""The rules for one job's journal, Result and text. Pure.

Each rule takes one job's case and yields a description of each fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mesh.protocol.messages import Delta, Result, Started, Status
from mesh.protocol.validate import max_tokens
from mesh.verify.soak.history import Case, JobKind, Requested, StoredEvent
from mesh.verify.soak.oracle import Reference

ONE_END = "every acknowledged request ends with exactly one Result"
ONE_HISTORY = "a job has one history: attempts count up by one, tokens have no gap and no repeat, the Result is last"
RESULT_SAYS = "a Result equals the streamed output"
UNDISTURBED = "the text is that of an undisturbed run"
NEWEST_WRITES = "no attempt writes to the journal after a later one has begun"
NO_INNOCENT = "a job ends as planned"

# The possible ends of each kind of job.
MEANT: dict[JobKind, tuple[Status, ...]] = {
    "plain": ("finished",),
    "stumble": ("finished",),
    "wreck": ("finished",),
    "restart": ("finished",),
    "twice": ("finished",),
    "poison": ("failed",),
    "cancel": ("cancelled", "finished"),
    "deadline": ("expired", "finished"),
}

Fault = tuple[str, str]  # the rule, and a description


@dataclass
class _Reading:
    """The state of a journal after each event, read from its start, and its faults."""

    attempt: int = 0
    index: int = 0
    pieces: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def blame(self, rule: str, kept: StoredEvent, what: str) -> None:
        self.faults.append((rule, f"event {kept.sequence}: {what}"))


def check_end(case: Case) -> Iterator[Fault]:
    """Check for exactly one Result of an accepted job, at most one of an unknown submit, none of a refused one."""
    announced = sum(isinstance(kept.event, Result) for kept in case.events)
    if case.is_accepted and case.result is None:
        yield ONE_END, "it was acknowledged and has no Result"
    if case.result is not None and announced == 0:
        yield ONE_END, "it has a Result, which was never announced"
    outcomes = {each.outcome for each in case.submitted}
    if outcomes == {"refused"} and (case.result is not None or case.events):
        yield ONE_END, "it was refused, but ran"
    if case.asked is None and (case.result is not None or case.events):
        yield ONE_END, "no client submitted it"


def check_journal(case: Case) -> Iterator[Fault]:
    """Check the public journal, and the Result against it."""
    reading = _Reading()
    may_restart = case.asked is not None and case.asked.request.on_worker_loss == "restart"
    for kept in case.events:
        _read(reading, kept, may_restart)
    yield from reading.faults
    if reading.results and case.result is not None and reading.results[0] != case.result:
        yield ONE_END, "the Result that was announced is not the one that is stored"
    yield from _check_attempts(case)
    if case.result is not None and case.streams:
        yield from _check_result(case.result, reading)


def _read(reading: _Reading, kept: StoredEvent, may_restart: bool) -> None:
    event = kept.event
    if reading.results:
        reading.blame(ONE_HISTORY, kept, "comes after the Result")
    match event:
        case None:
            reading.blame(ONE_HISTORY, kept, f"no worker writes this: {kept.note[:80]}")
        case Started():
            if event.attempt != reading.attempt + 1:
                reading.blame(ONE_HISTORY, kept, f"attempt {event.attempt} follows attempt {reading.attempt}")
            if event.index == 0 and may_restart:
                reading.index, reading.pieces = 0, []
            elif event.index != reading.index:
                reading.blame(ONE_HISTORY, kept, f"attempt begins at {event.index} after {reading.index} tokens")
                reading.index = event.index
            reading.attempt = event.attempt
        case Delta():
            _read_delta(reading, kept, event)
        case Result():
            reading.results.append(event)


def _read_delta(reading: _Reading, kept: StoredEvent, event: Delta) -> None:
    if event.attempt < reading.attempt:
        reading.blame(NEWEST_WRITES, kept, f"attempt {event.attempt} writes after attempt {reading.attempt} began")
    elif event.attempt > reading.attempt:
        reading.blame(ONE_HISTORY, kept, f"attempt {event.attempt} writes and never began")
    if event.index != reading.index:
        kind = "gap" if event.index > reading.index else "repeat"
        reading.blame(ONE_HISTORY, kept, f"{kind}: index {event.index}, expected {reading.index}")
    if not event.token_ids and event.finish_reason is None:
        reading.blame(ONE_HISTORY, kept, "a delta without tokens that is not the last")
    reading.index = event.index + len(event.token_ids)
    reading.pieces.append(event.text)


def _check_attempts(case: Case) -> Iterator[Fault]:
    """Check the private attempts of a job that streams nothing, and the Result's count of attempts.

    An attempt may begin after the Result is stored, and then finds it. It streams nothing and does not count. A job
    that streams nothing ends with the first Result that is created. An attempt that was already replaced may create it.
    """
    started = case.started()
    if not case.streams:
        for number, event in enumerate(started, 1):
            if event.attempt != number:
                yield ONE_HISTORY, f"attempt {event.attempt} began as number {number}"
            if event.index != 0:
                yield ONE_HISTORY, f"attempt {event.attempt} of a job that streams nothing begins at {event.index}"
        if any(isinstance(kept.event, Started | Delta) for kept in case.events):
            yield ONE_HISTORY, "a job that streams nothing has events besides its Result"
    if case.result is not None:
        began = started[-1].attempt if started else 0
        streamed = max((kept.event.attempt for kept in case.events if isinstance(kept.event, Delta)), default=0)
        if not streamed <= case.result.attempts <= began:
            yield (
                RESULT_SAYS,
                f"it counts {case.result.attempts} attempts; {began} began, and the last that streamed is {streamed}",
            )


def _check_result(result: Result, reading: _Reading) -> Iterator[Fault]:
    streamed = "".join(reading.pieces)
    if result.text != streamed:
        yield RESULT_SAYS, f"its text has {len(result.text)} characters and differs from the {len(streamed)} streamed"
    if result.usage.completion_tokens != reading.index:
        yield RESULT_SAYS, f"it counts {result.usage.completion_tokens} tokens; {reading.index} were streamed"


def check_text(case: Case, asked: Requested, reference: Reference) -> Iterator[Fault]:
    """Check the text against the simulator's undisturbed output."""
    result = case.result
    if result is None:
        return
    text = result.text
    tokens = result.usage.completion_tokens
    if tokens > max_tokens(asked.request):
        yield UNDISTURBED, f"{tokens} tokens were made, {max_tokens(asked.request)} were allowed"
    if result.status == "finished":
        if text != reference.text:
            yield UNDISTURBED, f"it differs from the reference at character {_differs_at(text, reference.text)}"
        if tokens != len(reference.token_ids) or result.finish_reason != reference.finish_reason:
            yield (
                UNDISTURBED,
                f"{tokens} tokens, {result.finish_reason}; the reference has {len(reference.token_ids)}, "
                f"{reference.finish_reason}",
            )
    elif not reference.text.startswith(text):
        yield UNDISTURBED, f"its partial text differs from the reference at {_differs_at(text, reference.text)}"
    ids = [token for kept in case.events if isinstance(kept.event, Delta) for token in kept.event.token_ids]
    if asked.kind != "restart" and tuple(ids) != reference.token_ids[: len(ids)]:
        yield UNDISTURBED, "its token ids are not those of the reference"


def check_status(case: Case, asked: Requested) -> Iterator[Fault]:
    """Check that only jobs that were planned to fail fail."""
    result = case.result
    if result is not None and result.status not in MEANT[asked.kind]:
        why = f" ({result.error.code}: {result.error.message})" if result.error is not None else ""
        yield NO_INNOCENT, f"a job of kind {asked.kind} ended {result.status}{why}"


def _differs_at(text: str, other: str) -> int:
    return next((at for at, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), len(text))
