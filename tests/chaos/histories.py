"""Made-up histories: one that keeps every promise, to plant faults in."""

from typing import Any

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.protocol.messages import Delta, Event, Request, Result, Started, Usage
from mesh.verify.soak.history import Requested, Rest, RunHistory, Sent, Settled, Shown, StoredEvent, Submitted
from mesh.verify.soak.oracle import reference_of

SETTINGS = SimulatorSettings()
JOB = "soak-1"
TOKENS = 8  # in deltas of two; the job was taken over after the second
REQUEST = Request(id=JOB, prompt="Tell me of the sea", max_tokens=TOKENS, temperature=0)
REFERENCE = reference_of(REQUEST, "default", JOB, SETTINGS)
PIECES = [
    reference_of(Request(prompt=REQUEST.prompt, max_tokens=n, temperature=0), "", "", SETTINGS).text
    for n in range(0, TOKENS + 1, 2)
]


def delta(attempt: int, index: int) -> Delta:
    """Two tokens of the reference, from `index` on."""
    text = PIECES[index // 2 + 1].removeprefix(PIECES[index // 2])
    last = index + 2 == TOKENS
    return Delta(
        id=JOB,
        attempt=attempt,
        index=index,
        text=text,
        token_ids=list(REFERENCE.token_ids[index : index + 2]),
        finish_reason=REFERENCE.finish_reason if last else None,
        usage=Usage(completion_tokens=TOKENS) if last else None,
    )


def started(attempt: int, index: int) -> Started:
    return Started(id=JOB, attempt=attempt, index=index, worker=f"w{attempt}-1", unix_ms=1, sequence=7)


RESULT = Result(
    id=JOB,
    tenant="default",
    model="soak",
    status="finished",
    text=REFERENCE.text,
    finish_reason=REFERENCE.finish_reason,
    usage=Usage(completion_tokens=TOKENS),
    attempts=2,
    worker="w2-1",
)
EVENTS: list[Event] = [started(1, 0), delta(1, 0), delta(1, 2), started(2, 4), delta(2, 4), delta(2, 6), RESULT]


def clean() -> RunHistory:
    """A job that was taken over once, followed live, and ended as it should."""
    history = RunHistory(rest=Rest(result_keys=1, result_writes=1, drained_s=1.0))
    history.asked[JOB] = Requested(JOB, "default", "standard", "plain", "live", REQUEST, 0.0)
    history.submitted.append(Submitted(0.1, JOB, "ok"))
    history.sequences[7] = JOB
    history.events[JOB] = [StoredEvent(10 + number, event) for number, event in enumerate(EVENTS)]
    fence = 0
    for number, event in enumerate(EVENTS[:-1]):
        history.sent.append(sent("events", event, number, fence))
        fence = 10 + number
    history.sent.append(sent("results", RESULT, 20, 0))
    history.sent.append(sent("events", RESULT, 21, fence))
    history.settled.append(Settled(2.2, 22, 7, "ack", True, "_INBOX.w2"))
    history.results[JOB] = RESULT
    deltas = tuple(event for event in EVENTS if isinstance(event, Delta))
    history.shown.append(Shown(JOB, "live", deltas, 0, RESULT))
    return history


def sent(to: str, event: Event, order: int, expected: int | None) -> Sent:
    """The record of a publish, a tenth of a second after the one before."""
    common: dict[str, Any] = {"at_s": order / 10, "order": order, "to": to, "job": JOB, "expected": expected}
    match event:
        case Started():
            return Sent(
                **common,
                what="started",
                sender=f"_INBOX.w{event.attempt}",
                attempt=event.attempt,
                index=event.index,
                worker=event.worker,
            )
        case Delta():
            return Sent(
                **common,
                what="delta",
                sender=f"_INBOX.w{event.attempt}",
                attempt=event.attempt,
                index=event.index,
                tokens=len(event.token_ids),
            )
        case _:
            return Sent(**common, what="result", sender="_INBOX.w2", attempt=event.attempts, tokens=TOKENS)
