"""The soak's checker, on invented histories: it accepts a clean one, and finds each broken promise."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as changed

from mesh.protocol.messages import Delta, ErrorInfo, Event, Usage
from mesh.verify.soak import checker, rules_journal, rules_reader, rules_wire
from mesh.verify.soak.checker import check
from mesh.verify.soak.costs import recoveries, work_of
from mesh.verify.soak.history import (
    CancelRequested,
    CancelTold,
    DeadLetterSeen,
    Died,
    JobKind,
    Missed,
    RunHistory,
    Settled,
    StoredEvent,
    Struck,
    Submitted,
    cases,
)
from mesh.verify.soak.report import figures_of, lines_of, lines_of_violations
from mesh.verify.soak.violation import Bounds, Violation
from tests.chaos.histories import EVENTS, JOB, RESULT, SETTINGS, TOKENS, clean, delta, sent, started

BOUNDS = Bounds()
Plant = Callable[[RunHistory], None]
PLANTS: list[tuple[str, Plant]] = []


def breaks(rule: str) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        PLANTS.append((rule, plant))
        return plant

    return note


def verdict(history: RunHistory, bounds: Bounds = BOUNDS) -> list[Violation]:
    return check(history, SETTINGS, bounds)


def keep(history: RunHistory, *events: Event) -> None:
    """Replace the journal."""
    history.events[JOB] = [StoredEvent(10 + number, event) for number, event in enumerate(events)]


def end(history: RunHistory, **fields: Any) -> None:
    """Replace the Result, everywhere alike."""
    result = changed(RESULT, **fields)
    history.results[JOB] = result
    history.events[JOB][-1] = replace(history.events[JOB][-1], event=result)
    history.shown[0] = replace(history.shown[0], result=result)


def become(history: RunHistory, kind: JobKind) -> None:
    history.asked[JOB] = replace(history.asked[JOB], kind=kind)


@breaks(rules_journal.ONE_END)
def an_acknowledged_request_without_a_result(history: RunHistory) -> None:
    del history.results[JOB]
    history.events[JOB].pop()


@breaks(rules_journal.ONE_END)
def a_result_that_was_never_announced(history: RunHistory) -> None:
    history.events[JOB].pop()


@breaks(rules_journal.ONE_END)
def another_result_announced_than_stored(history: RunHistory) -> None:
    history.results[JOB] = changed(RESULT, worker="w9-1")


@breaks(rules_journal.ONE_END)
def a_refused_request_that_ran(history: RunHistory) -> None:
    history.submitted[:] = [Submitted(0.1, JOB, "refused")]


@breaks(rules_journal.ONE_END)
def a_job_that_nobody_asked_for(history: RunHistory) -> None:
    history.events["soak-99"] = [StoredEvent(99, started(1, 0))]


@breaks(rules_journal.ONE_HISTORY)
def an_attempt_number_used_twice(history: RunHistory) -> None:
    keep(history, *EVENTS[:3], started(1, 4), *EVENTS[4:])


@breaks(rules_journal.ONE_HISTORY)
def an_attempt_number_left_out(history: RunHistory) -> None:
    keep(history, *EVENTS[:3], started(3, 4), *EVENTS[4:])


@breaks(rules_journal.ONE_HISTORY)
def a_gap(history: RunHistory) -> None:
    keep(history, *EVENTS[:2], *EVENTS[3:])


@breaks(rules_journal.ONE_HISTORY)
def a_repeat(history: RunHistory) -> None:
    keep(history, *EVENTS[:2], EVENTS[1], *EVENTS[2:])


@breaks(rules_journal.ONE_HISTORY)
def a_restart_that_nobody_asked_for(history: RunHistory) -> None:
    keep(history, *EVENTS[:3], started(2, 0), delta(2, 0), delta(2, 2), delta(2, 4), delta(2, 6), RESULT)


@breaks(rules_journal.ONE_HISTORY)
def an_event_after_the_result(history: RunHistory) -> None:
    keep(history, *EVENTS, delta(2, 6))


@breaks(rules_journal.ONE_HISTORY)
def two_results(history: RunHistory) -> None:
    keep(history, *EVENTS, RESULT)


@breaks(rules_journal.ONE_HISTORY)
def a_foreign_entry(history: RunHistory) -> None:
    history.events[JOB].insert(2, StoredEvent(11, None, "{}"))


@breaks(rules_journal.NEWEST_WRITES)
def an_old_attempt_that_still_writes(history: RunHistory) -> None:
    keep(history, *EVENTS[:4], delta(1, 4), *EVENTS[5:])


@breaks(rules_journal.RESULT_SAYS)
def a_result_with_other_text(history: RunHistory) -> None:
    end(history, text=RESULT.text[:-1])


@breaks(rules_journal.RESULT_SAYS)
def a_result_that_counts_wrong(history: RunHistory) -> None:
    end(history, usage=Usage(completion_tokens=TOKENS - 1))


@breaks(rules_journal.RESULT_SAYS)
def a_result_that_forgot_an_attempt(history: RunHistory) -> None:
    end(history, attempts=1)


@breaks(rules_journal.UNDISTURBED)
def text_that_no_undisturbed_run_writes(history: RunHistory) -> None:
    """Streamed and stored alike, and wrong."""
    events = [*EVENTS[:-2], changed(EVENTS[-2], text=" nonsense"), EVENTS[-1]]
    text = "".join(event.text for event in events if isinstance(event, Delta))
    keep(history, *events)
    end(history, text=text)


@breaks(rules_journal.UNDISTURBED)
def more_tokens_than_were_allowed(history: RunHistory) -> None:
    asked = history.asked[JOB]
    history.asked[JOB] = replace(asked, request=changed(asked.request, max_tokens=TOKENS - 2))


@breaks(rules_journal.NO_INNOCENT)
def an_innocent_that_fails(history: RunHistory) -> None:
    end(history, status="failed", error=ErrorInfo(code="attempts_exhausted", message="given up"))


@breaks(rules_reader.IN_ORDER)
def a_reader_that_misses_a_piece(history: RunHistory) -> None:
    shown = history.shown[0]
    history.shown[0] = replace(shown, pieces=(*shown.pieces[:1], *shown.pieces[2:]))


@breaks(rules_reader.IN_ORDER)
def a_reader_that_is_shown_a_piece_twice(history: RunHistory) -> None:
    shown = history.shown[0]
    history.shown[0] = replace(shown, pieces=(*shown.pieces[:2], *shown.pieces[1:]))


@breaks(rules_reader.IN_ORDER)
def a_reader_that_is_shown_another_jobs_text(history: RunHistory) -> None:
    shown = history.shown[0]
    history.shown[0] = replace(shown, pieces=(changed(shown.pieces[0], text="never said"), *shown.pieces[1:]))


@breaks(rules_reader.IN_ORDER)
def a_reader_whose_stream_ends_early(history: RunHistory) -> None:
    history.shown[0] = replace(history.shown[0], pieces=history.shown[0].pieces[:2])


@breaks(rules_reader.IN_ORDER)
def a_reader_told_to_discard_what_did_not_change(history: RunHistory) -> None:
    history.shown[0] = replace(history.shown[0], restarts=1)


@breaks(rules_reader.TOLD)
def a_reader_that_waits_for_ever(history: RunHistory) -> None:
    history.shown[0] = replace(history.shown[0], result=None, fault="WaitTimeoutError: no Result")


@breaks(rules_reader.SAME_RESULT)
def a_result_that_changed_after_it_was_read(history: RunHistory) -> None:
    history.shown[0] = replace(history.shown[0], result=changed(RESULT, worker="w1-1"))


@breaks(rules_wire.FENCED)
def an_event_without_a_fence(history: RunHistory) -> None:
    history.sent[2] = replace(history.sent[2], expected=None)


@breaks(rules_wire.CREATED)
def a_result_that_was_put(history: RunHistory) -> None:
    history.sent[-2] = replace(history.sent[-2], expected=None)


@breaks(rules_wire.CREATED)
def a_result_that_was_updated(history: RunHistory) -> None:
    history.sent.append(sent("results", RESULT, 30, 5))


@breaks(rules_wire.ACK_FOLLOWS)
def an_ack_before_the_result(history: RunHistory) -> None:
    history.settled[0] = replace(history.settled[0], order=19, at_s=1.9)


@breaks(rules_wire.ACK_FOLLOWS)
def a_removal_before_the_result(history: RunHistory) -> None:
    history.settled[0] = Settled(1.9, 19, 7, "remove", True, "_INBOX.ctl")


@breaks(rules_wire.ACK_CONFIRMED)
def an_ack_that_nobody_confirms(history: RunHistory) -> None:
    history.settled[0] = replace(history.settled[0], is_confirmed=False)


@breaks(rules_wire.NO_TERM)
def a_term(history: RunHistory) -> None:
    history.settled.append(Settled(2.3, 23, 7, "term", False, ""))


@breaks(rules_wire.NO_TERM)
def a_term_of_nobody_knows_what(history: RunHistory) -> None:
    history.settled.append(Settled(2.3, 23, 1234, "term", False, ""))


@breaks(rules_wire.CANCEL_HOLDS)
def a_cancel_answered_with_what_did_not_happen(history: RunHistory) -> None:
    become(history, "cancel")
    history.cancelled.append(CancelRequested(JOB, 0.5, 0.6, "cancelled"))


@breaks(rules_wire.CANCEL_HOLDS)
def a_cancel_that_meets_a_bug(history: RunHistory) -> None:
    become(history, "cancel")
    history.cancelled.append(
        CancelRequested(JOB, 0.5, 0.6, "", "UnavailableError: cancel of job soak-1: internal error")
    )


@breaks(rules_wire.CANCEL_HOLDS)
def a_worker_that_goes_on_after_the_cancel(history: RunHistory) -> None:
    become(history, "cancel")
    history.told.append(CancelTold(0.35, JOB))
    history.sent.append(sent("events", delta(2, 6), 40, 15))


@breaks(checker.WRITTEN_ONCE)
def a_result_written_twice(history: RunHistory) -> None:
    history.rest = replace(history.rest, result_writes=2)


@breaks(checker.ONLY_POISON)
def an_innocent_that_is_buried(history: RunHistory) -> None:
    history.letters.append(DeadLetterSeen(JOB, 3, "attempts_exhausted"))


@breaks(checker.ONLY_POISON)
def poison_that_is_not_buried(history: RunHistory) -> None:
    become(history, "poison")


@breaks(checker.ONLY_POISON)
def poison_that_is_buried_twice(history: RunHistory) -> None:
    become(history, "poison")
    history.letters += [DeadLetterSeen(JOB, 4, "attempts_exhausted")] * 2


@breaks(checker.AT_REST)
def a_request_that_stays_in_the_queue(history: RunHistory) -> None:
    history.rest = replace(history.rest, queued=1)


@breaks(checker.AT_REST)
def a_delivery_that_nobody_acknowledged(history: RunHistory) -> None:
    history.rest = replace(history.rest, ack_pending=1)


@breaks(checker.DRAINS)
def a_queue_that_never_drains(history: RunHistory) -> None:
    history.rest = replace(history.rest, drained_s=None)


@breaks(checker.NO_BUG)
def a_traceback_in_a_workers_log(history: RunHistory) -> None:
    history.tracebacks.append("AttributeError: 'NoneType' object has no attribute 'job'")


@breaks(checker.LITTLE_WASTE)
def work_done_twice(history: RunHistory) -> None:
    history.sent += [sent("events", delta(attempt, 4), 50 + attempt, 13) for attempt in range(3, 6)]


def test_a_clean_history_passes() -> None:
    assert verdict(clean()) == []


@pytest.mark.parametrize(("rule", "plant"), PLANTS, ids=[plant.__name__ for _, plant in PLANTS])
def test_the_judge_sees(rule: str, plant: Callable[[RunHistory], None]) -> None:
    history = clean()
    plant(history)
    found = verdict(history)
    assert rule in {each.rule for each in found}
    assert all(each.what for each in found)


def test_every_rule_is_seen_to_be_broken() -> None:
    rules = {
        value
        for room in (checker, rules_journal, rules_reader, rules_wire)
        for name, value in vars(room).items()
        if name.isupper() and isinstance(value, str)
    }
    assert rules == {rule for rule, _ in PLANTS}


def test_a_violation_tells_the_whole_history_of_its_job() -> None:
    history = clean()
    an_ack_before_the_result(history)
    history.struck.append(Struck(0.25, "kill", "w1-1", 0.25))
    (found,) = verdict(history)
    text = "\n".join(found.lines())
    assert rules_wire.ACK_FOLLOWS in text
    for part in (
        "plain, standard",
        "submit ok",
        "started attempt 2 at 4 by w2-1",
        "FAULT kill of w1-1",
        "ack of request 7",
        "2 deltas attempt 2 at 4, 4 tokens, finished length",
        "stored: result finished",
        "reader (live)",
    ):
        assert part in text
    assert max(map(len, lines_of_violations([found]))) < 200


def test_what_the_watcher_may_have_missed_is_no_violation() -> None:
    history = clean()
    history.sent = [each for each in history.sent if each.to != "results"]
    assert {each.rule for each in verdict(history)} == {rules_wire.ACK_FOLLOWS}
    history.missed.append(Missed(18, 21, 1.8, 2.1))
    assert verdict(history) == []


def test_a_gap_before_the_job_was_asked_for_excuses_nothing() -> None:
    history = clean()
    history.sent = [each for each in history.sent if each.to != "results"]
    history.asked[JOB] = replace(history.asked[JOB], at_s=0.1)
    history.missed.append(Missed(0, 0, 0.0, 0.05))
    assert {each.rule for each in verdict(history)} == {rules_wire.ACK_FOLLOWS}


def test_an_ack_of_another_connection_may_be_heard_a_little_early_in_a_cluster() -> None:
    history = clean()
    history.settled[0] = replace(history.settled[0], order=19, at_s=1.99, sender="_INBOX.w3")
    assert {each.rule for each in verdict(history)} == {rules_wire.ACK_FOLLOWS}
    assert verdict(history, replace(BOUNDS, order_slack_s=0.1)) == []


def test_a_suspended_worker_is_not_blamed_for_what_it_says_when_it_wakes_up() -> None:
    history = clean()
    a_worker_that_goes_on_after_the_cancel(history)
    history.struck.append(Struck(0.4, "stop", "w2-1", 3.0))
    assert verdict(history) == []


def test_an_unknown_outcome_may_have_no_result_and_may_have_one() -> None:
    history = clean()
    history.submitted[:] = [Submitted(0.1, JOB, "unknown")]
    assert verdict(history) == []
    history = clean()
    history.submitted[:] = [Submitted(0.1, JOB, "unknown")]
    for records in (history.events, history.results):
        del records[JOB]
    for kept in (history.sent, history.settled, history.shown):
        kept.clear()
    assert verdict(history) == []


def test_a_restart_that_was_asked_for_is_none_of_the_judges_business() -> None:
    history = clean()
    become(history, "restart")
    asked = history.asked[JOB]
    history.asked[JOB] = replace(asked, request=changed(asked.request, on_worker_loss="restart"))
    keep(history, *EVENTS[:3], started(2, 0), delta(2, 0), delta(2, 2), delta(2, 4), delta(2, 6), RESULT)
    assert verdict(history) == []


def test_the_books_count_tokens_made_in_vain() -> None:
    history = clean()
    assert work_of(cases(history).values()).wasted == 0
    history.sent.append(sent("events", delta(1, 4), 5, 12))  # the first worker's, refused
    history.sent.append(sent("events", delta(2, 4), 6, 13))  # the second's once more, its answer was lost
    work = work_of(cases(history).values())
    assert (work.useful, work.wasted) == (TOKENS, 2)


def test_recovery_is_the_longest_pause_of_a_job_that_the_fault_hit() -> None:
    history = clean()
    history.struck.append(Struck(0.15, "kill", "w1-1", 0.15))
    history.died.append(Died(0.17, "w1-1", "killed", -9))  # told already
    history.died.append(Died(0.25, "w1-1", "poison", 17))
    history.died.append(Died(0.26, "w9-1", "poison", 17))  # ran nothing
    history.struck.append(Struck(0.42, "server", "n1", 0.9))
    found = {each.kind: (round(each.stall_s, 3), each.jobs) for each in recoveries(history, cases(history).values())}
    assert found == {"kill": (0.05, 1), "poison": (0.05, 1), "server": (0.08, 1)}


def test_the_report_fits_a_terminal() -> None:
    history = clean()
    history.struck.append(Struck(0.42, "server", "n1", 0.9))
    history.died.append(Died(0.15, "w1-1", "poison", 17))
    an_innocent_that_is_buried(history)
    figures = figures_of(history, verdict(history), seed=1, workers=5, servers=1)
    assert (figures.lost, figures.innocents_buried, figures.violations) == (0, 1, 1)
    assert figures.faults == {"poison": 1, "server": 1}
    assert max(map(len, lines_of(figures))) <= 80
