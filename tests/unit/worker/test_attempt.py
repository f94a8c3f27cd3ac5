"""One attempt, decision by decision."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh.errors import DisconnectedError, EngineDeadError, EngineFailedError, TooLargeError
from mesh.job_key import JobRef
from mesh.policies.retry import RetryPolicy
from mesh.protocol.history import History, read_history
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, Delta, Event, Note, Request, Result, Started, Usage
from mesh.protocol.outcome import JobFacts
from mesh.worker.attempt import (
    Ack,
    Action,
    Announce,
    Attempt,
    Begin,
    Close,
    Drop,
    MoveToDeadLetters,
    Nak,
    NoteAttempt,
    Store,
)

STORED = 1_000_000
USAGE = Usage(prompt_tokens=3, completion_tokens=2)


def facts(request: Request | None = None, sequence: int = 17) -> JobFacts:
    return JobFacts(
        ref=JobRef("j", "t", "m", "batch", sequence),
        worker="w",
        stored_unix_ms=STORED,
        received_unix_ms=STORED + 5,
        request=request or Request(prompt="a", metadata={"team": "x"}),
    )


def attempt(request: Request | None = None, retry: RetryPolicy | None = None) -> Attempt:
    return Attempt(facts(request), retry or RetryPolicy())


def journal(*ids: int, attempts: int = 1, sequence: int = 17, **last: Any) -> History:
    events: list[Event] = [
        Started(id="j", attempt=n, index=0, worker="v", unix_ms=1, sequence=sequence) for n in range(1, attempts + 1)
    ]
    if ids:
        events.append(Delta(id="j", attempt=attempts, index=0, text="x" * len(ids), token_ids=list(ids), **last))
    return read_history(events)


def take_over(one: Attempt, history: History, index: int, is_queued: bool, now: int) -> list[Action]:
    one.recall(history)
    return one.taken_over(index, is_queued, now)


def kinds(actions: list[Action]) -> list[type]:
    return [type(action) for action in actions]


def test_a_new_job_begins_at_once() -> None:
    one = attempt()
    (begin,) = one.first(STORED + 10)
    assert begin == Begin(
        Started(id="j", attempt=1, index=0, worker="w", unix_ms=STORED + 10, sequence=17), token_ids=(), text=""
    )
    assert (one.number, one.resumed_at, one.is_over) == (1, 0, False)


def test_a_job_that_finishes_is_stored_then_announced_then_acknowledged() -> None:
    one = attempt()
    one.first(STORED + 10)
    one.produced("He", [1], STORED + 40)
    one.produced("llo", [2], STORED + 50)
    actions = one.finished("stop", USAGE, STORED + 60)
    assert kinds(actions) == [Store, Announce, Ack]
    store, announce, _ = actions
    assert isinstance(store, Store)
    result = store.result
    assert isinstance(announce, Announce)
    assert announce.result is result
    assert (result.text, result.status, result.finish_reason, result.usage) == ("Hello", "finished", "stop", USAGE)
    assert (result.id, result.tenant, result.model, result.worker, result.attempts) == ("j", "t", "m", "w", 1)
    assert (result.timing.queued_ms, result.timing.first_token_ms, result.timing.total_ms) == (10, 40, 60)
    assert (result.created_unix_ms, result.finished_unix_ms) == (STORED, STORED + 60)
    assert result.metadata == {"team": "x"}
    assert store.ttl_ms == 3_600_000
    assert one.is_over


def test_vectors_stand_in_place_of_text() -> None:
    one = attempt(Request(input="a", result_ttl_ms=5000))
    one.first(STORED)
    store, *_ = one.embedded([[1.0, 2.0]], Usage(prompt_tokens=1), STORED + 1)
    assert isinstance(store, Store)
    assert store.result.embeddings == [[1.0, 2.0]]
    assert store.result.text == ""
    assert store.ttl_ms == 5000


def test_another_worker_goes_on_after_what_stands() -> None:
    one = attempt()
    (begin,) = take_over(one, journal(5, 6, 7), 3, False, STORED + 10)
    assert isinstance(begin, Begin)
    assert (begin.event.attempt, begin.event.index, begin.token_ids, begin.text) == (2, 3, (5, 6, 7), "xxx")
    one.produced("y", [8], STORED + 20)
    store, *_ = one.finished("stop", USAGE, STORED + 30)
    assert isinstance(store, Store)
    assert store.result.text == "xxxy"
    assert store.result.timing.first_token_ms is None, "another worker made the first token"
    assert (one.tokens, one.resumed_at) == (4, 3)


def test_a_request_may_ask_to_start_again_instead() -> None:
    one = attempt(Request(prompt="a", on_worker_loss="restart"))
    (begin,) = take_over(one, journal(5, 6, 7), 3, False, STORED + 10)
    assert isinstance(begin, Begin)
    assert (begin.event.index, begin.token_ids, begin.text) == (0, (), "")


def test_a_request_may_ask_to_fail_instead() -> None:
    one = attempt(Request(prompt="a", on_worker_loss="fail"))
    close, store, *rest = take_over(one, journal(5), 1, False, STORED + 10)
    assert isinstance(close, Close)
    assert (close.event.attempt, close.event.index, close.event.closing) == (2, 1, True)
    assert kinds(rest) == [Announce, Ack]
    assert isinstance(store, Store)
    assert store.result.error is not None
    assert (store.result.status, store.result.error.code, store.result.text) == ("failed", "engine_dead", "x")
    one = attempt(Request(prompt="a", on_worker_loss="fail"))
    assert kinds(take_over(one, History(), 0, False, STORED + 10)) == [Begin]


def test_a_journal_that_says_how_it_ended_needs_no_engine() -> None:
    one = attempt()
    history = journal(5, 6, finish_reason="length", usage=USAGE)
    store, announce, ack = take_over(one, history, 2, False, STORED + 10)
    assert isinstance(store, Store)
    assert (store.result.status, store.result.finish_reason, store.result.usage) == ("finished", "length", USAGE)
    assert (store.result.text, store.result.attempts) == ("xx", 1)
    assert isinstance(announce, Announce)
    assert isinstance(ack, Ack)


def test_a_journal_that_holds_the_result_is_stored_where_it_is_not_and_acknowledged() -> None:
    history = journal(5)
    history.apply(Result(id="j", tenant="t", model="m", status="finished", text="x"))
    actions = take_over(attempt(), history, 1, False, STORED + 10)
    assert kinds(actions) == [Store, Ack]
    assert isinstance(actions[0], Store)
    assert actions[0].result is history.result


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_job_whose_result_is_told_is_given_no_other_whatever_comes_now(how: str) -> None:
    """Somebody ended it in the queue, and died between the journal and the store; then it is asked for once more."""
    told = Result(id="j", tenant="t", model="m", worker="v", status="cancelled", attempts=0)
    one = attempt()
    one.recall(read_history([told]))
    actions = getattr(one, how)(STORED + 20)
    assert kinds(actions) == [Store, Ack]
    assert actions[0].result is told


def test_a_second_request_of_the_same_id_is_acknowledged_while_the_first_one_is_there() -> None:
    history = journal(5, sequence=9)
    assert kinds(take_over(attempt(), history, 1, True, STORED + 10)) == [Ack]
    assert kinds(take_over(attempt(), history, 1, False, STORED + 10)) == [Begin]
    assert kinds(take_over(attempt(), journal(5, sequence=17), 1, True, STORED + 10)) == [Begin]


@pytest.mark.parametrize("begins", [True, False])
def test_a_job_past_its_deadline_is_not_begun(begins: bool) -> None:
    one = attempt(Request(prompt="a", deadline_unix_ms=STORED + 10))
    actions = one.first(STORED + 10) if begins else take_over(one, journal(5), 1, False, STORED + 10)
    closes = [] if begins else [Close]
    assert kinds(actions) == [*closes, Store, Announce, Ack]
    assert isinstance(actions[-2], Announce)
    result = actions[-2].result
    assert result.error is not None
    assert (result.status, result.error.code) == ("expired", "expired")
    where = "before it started" if begins else "while it ran"
    assert where in result.error.message


def test_without_a_deadline_a_job_has_ten_minutes() -> None:
    assert facts().deadline_unix_ms == STORED + DEFAULT_DEADLINE_MS
    assert facts(Request(prompt="a", deadline_unix_ms=7)).deadline_unix_ms == 7


def test_a_failed_attempt_is_handed_back_with_growing_patience_and_then_buried() -> None:
    waits = []
    for number in (1, 2):
        one = attempt()
        take_over(one, journal(attempts=number - 1), 0, False, STORED + 10)
        remark, nak = one.failed(EngineFailedError("out of memory"), STORED + 20)
        assert remark == NoteAttempt(Note(id="j", attempt=number, verdict="failed", reason="out of memory"))
        assert isinstance(nak, Nak)
        waits.append(nak.delay_s)
    assert waits == [0.2, 0.4]
    one, history = attempt(), journal(attempts=2)
    history.judge([Note(id="j", attempt=number, verdict="failed") for number in (1, 2)])
    take_over(one, history, 0, False, STORED + 10)
    remark, bury, store, announce, ack = one.failed(EngineFailedError("out of memory"), STORED + 20)
    assert isinstance(bury, MoveToDeadLetters)
    assert (bury.attempts, bury.reason.code) == (3, "attempts_exhausted")
    assert isinstance(store, Store)
    assert store.result.error == bury.reason
    assert "out of memory" in bury.reason.message
    assert [type(announce), type(ack)] == [Announce, Ack]


def test_a_job_that_killed_its_workers_when_alone_is_not_begun_again() -> None:
    history = journal(attempts=2)
    for number in (3, 4):
        one = attempt()
        one.recall(history)
        assert one.wants_isolation
        (begin,) = one.taken_over(0, False, STORED + 10)
        assert isinstance(begin, Begin)
        assert (begin.event.attempt, begin.event.isolated) == (number, True)
    one = attempt()
    actions = take_over(one, history, 0, False, STORED + 10)
    assert not one.wants_isolation, "it is not run again"
    assert kinds(actions) == [MoveToDeadLetters, Close, Store, Announce, Ack]
    assert isinstance(actions[0], MoveToDeadLetters)
    assert actions[0].attempts == 4


def test_a_silent_job_needs_no_closing() -> None:
    one = attempt(Request(prompt="a", stream=False, deadline_unix_ms=STORED))
    assert kinds(take_over(one, journal(), 0, False, STORED + 10)) == [Store, Announce, Ack]


def test_a_job_whose_workers_died_in_company_is_not_buried() -> None:
    one = attempt()
    (begin,) = take_over(one, journal(attempts=9), 0, False, STORED + 10)
    assert isinstance(begin, Begin)
    assert begin.event.isolated


def test_a_job_that_gets_further_needs_no_solitude() -> None:
    one = attempt()
    history = journal(attempts=2)
    history.apply(Delta(id="j", attempt=2, index=0, text="x", token_ids=[1]))
    (begin,) = take_over(one, history, 1, False, STORED + 10)
    assert isinstance(begin, Begin)
    assert not begin.event.isolated


def test_an_attempt_handed_back_is_noted_so_that_it_does_not_count() -> None:
    one = attempt()
    one.first(STORED + 10)
    remark, nak = one.returned()
    assert remark == NoteAttempt(Note(id="j", attempt=1, verdict="returned"))
    assert nak == Nak(0.0)


def test_attempts_that_brought_it_further_are_not_held_against_a_job() -> None:
    history = journal()
    for number in range(2, 20):
        history.apply(Started(id="j", attempt=number, index=history.index, worker="v", unix_ms=1))
        history.apply(Delta(id="j", attempt=number, index=history.index, text="x", token_ids=[number]))
    (begin,) = take_over(attempt(), history, history.index, False, STORED + 10)
    assert isinstance(begin, Begin)
    assert begin.event.attempt == 20


def test_a_result_carries_only_codes_of_the_protocol() -> None:
    """A fault of NATS while the engine was asked is no word of the wire."""
    one = attempt()
    one.first(STORED + 10)
    store, *_ = one.failed(DisconnectedError("NATS is away"), STORED + 20)
    assert isinstance(store, Store)
    assert store.result.error is not None
    assert (store.result.status, store.result.error.code) == ("failed", "internal")
    assert store.result.error.retryable


def test_a_refused_request_fails_at_once_with_its_code() -> None:
    one = attempt()
    one.first(STORED + 10)
    store, *_ = one.failed(TooLargeError("too long", field="prompt"), STORED + 20)
    assert isinstance(store, Store)
    error = store.result.error
    assert error is not None
    assert (error.code, error.message, error.retryable) == ("too_large", "prompt: too long", False)
    assert store.result.usage.completion_tokens == 0


def test_a_dead_engine_hands_the_job_back() -> None:
    one = attempt()
    one.first(STORED + 10)
    remark, nak = one.failed(EngineDeadError("gone"), STORED + 20)
    assert remark == NoteAttempt(Note(id="j", attempt=1, verdict="died", reason="gone"))
    assert isinstance(nak, Nak)


def test_an_engine_that_was_dead_before_the_job_began_says_nothing_of_it() -> None:
    assert attempt().failed(EngineDeadError("gone"), STORED + 20) == [Nak(0.0)]


def test_a_job_is_not_buried_on_the_word_of_a_worker_that_may_live() -> None:
    history = journal(attempts=2)
    history.apply(Started(id="j", attempt=3, index=0, worker="v", unix_ms=1, isolated=True))
    one = attempt()
    take_over(one, history, 0, False, STORED + 10)
    assert kinds(one.failed(EngineDeadError("gone"), STORED + 20)) == [NoteAttempt, Nak], (
        "nobody knows what became of 3"
    )


def test_a_cancelled_job_keeps_what_it_had() -> None:
    one = attempt()
    one.first(STORED + 10)
    one.produced("He", [1], STORED + 40)
    store, *_ = one.cancelled(STORED + 50)
    assert isinstance(store, Store)
    assert (store.result.status, store.result.text, store.result.usage.completion_tokens) == ("cancelled", "He", 1)
    assert store.result.finish_reason is None


def test_a_result_found_is_announced_if_nobody_did() -> None:
    result = Result(id="j", tenant="t", model="m", status="finished", text="x")
    assert attempt().found(result, is_announced=True) == [Ack()]
    assert attempt().found(result, is_announced=False) == [Announce(result), Ack()]


def test_a_job_given_back_is_nakked_and_a_lost_one_is_left_alone() -> None:
    assert attempt().returned() == [Nak(0.0)]
    assert attempt().lost() == [Drop()]


def test_after_its_end_an_attempt_decides_nothing() -> None:
    one = attempt()
    one.lost()
    result = Result(id="j", tenant="t", model="m", status="finished", text="x")
    asks: tuple[Callable[[], object], ...] = (
        lambda: one.first(STORED),
        lambda: take_over(one, History(), 0, False, STORED),
        lambda: one.finished("stop", USAGE, STORED),
        lambda: one.embedded([], USAGE, STORED),
        lambda: one.failed(EngineFailedError("x"), STORED),
        lambda: one.failed(TooLargeError("x"), STORED),
        lambda: one.cancelled(STORED),
        lambda: one.expired(STORED),
        lambda: one.found(result, True),
        one.returned,
        one.lost,
    )
    for ask in asks:
        with pytest.raises(RuntimeError, match="over"):
            ask()


def test_a_body_that_is_no_request_can_still_be_answered() -> None:
    one = Attempt(JobFacts(JobRef("s9", "t", "m", "batch", 9), "w", STORED, STORED, None), RetryPolicy())
    store, *_ = one.failed(TooLargeError("much"), STORED + 1)
    assert isinstance(store, Store)
    assert (store.result.id, store.result.metadata, store.ttl_ms) == ("s9", None, 3_600_000)
