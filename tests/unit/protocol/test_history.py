"""What a job's events say, taken together."""

from typing import Any

from mesh.protocol.history import History, Trial, read_history, verdict_of
from mesh.protocol.messages import Delta, Event, Note, Result, Started, Usage


def started(attempt: int, index: int = 0, worker: str = "w", sequence: int = 17) -> Started:
    return Started(id="j", attempt=attempt, index=index, worker=worker, unix_ms=1, sequence=sequence)


def delta(attempt: int, index: int, text: str, ids: list[int], **more: Any) -> Delta:
    return Delta(id="j", attempt=attempt, index=index, text=text, token_ids=ids, **more)


RESULT = Result(id="j", tenant="t", model="m", status="finished", text="ab")


def test_nothing_happened_yet() -> None:
    assert read_history([]) == History()
    assert History().index == 0


def test_deltas_add_up() -> None:
    history = read_history([started(1), delta(1, 0, "a", [1]), delta(1, 1, "bc", [2, 3])])
    assert (history.text, history.token_ids, history.index, history.attempts) == ("abc", [1, 2, 3], 3, 1)


def test_another_worker_goes_on_where_the_first_stopped() -> None:
    events: list[Event] = [started(1), delta(1, 0, "a", [1]), started(2, 1, "v"), delta(2, 1, "b", [2])]
    history = read_history(events)
    assert (history.text, history.attempts, history.worker, history.trials) == ("ab", 2, "v", [])


def test_tokens_that_had_shown_nothing_can_be_made_anew() -> None:
    history = read_history([started(1), delta(1, 0, "a", [1]), delta(1, 1, "", [2, 3]), started(2, 1)])
    assert (history.text, history.token_ids) == ("a", [1])
    history.apply(delta(2, 1, "b", [9]))
    assert (history.text, history.token_ids) == ("ab", [1, 9])


def test_an_attempt_from_the_start_forgets_what_was() -> None:
    history = read_history([started(1), delta(1, 0, "a", [1], finish_reason="stop", usage=Usage()), started(2, 0)])
    assert (history.text, history.token_ids, history.finish_reason, history.usage) == ("", [], None, None)
    assert history.best == 1


def test_the_last_delta_tells_how_it_ended() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    history = read_history([started(1), delta(1, 0, "ab", [1, 2], finish_reason="stop", usage=usage)])
    assert (history.finish_reason, history.usage) == ("stop", usage)


def test_an_end_without_tokens_keeps_those_that_stand() -> None:
    events: list[Event] = [started(1), delta(1, 0, "a", [1]), delta(1, 1, "held", [], finish_reason="stop")]
    history = read_history(events)
    assert (history.text, history.token_ids, history.finish_reason) == ("aheld", [1], "stop")


def test_the_result_is_kept() -> None:
    assert read_history([started(1), RESULT]).result is RESULT


def test_attempts_that_bring_nothing_are_counted_in_a_row() -> None:
    history = read_history([started(1), started(2), started(3)])
    assert [trial.attempt for trial in history.trials] == [1, 2, 3]
    history.apply(delta(3, 0, "a", [1]))
    assert history.trials == []
    history.apply(started(4, 0))
    history.apply(delta(4, 0, "b", [2]))
    assert [trial.attempt for trial in history.trials] == [4], "it came no further than the best before it"
    history.apply(delta(4, 1, "c", [3]))
    assert history.trials == []


def test_the_first_request_that_started_is_the_one_that_counts() -> None:
    assert read_history([started(1, sequence=17), started(2, sequence=99)]).request_sequence == 17
    assert read_history([started(1, sequence=0), started(2, sequence=99)]).request_sequence == 99


def test_notes_tell_how_attempts_without_a_result_ended() -> None:
    history = read_history(
        [started(1), started(2), Started(id="j", attempt=3, index=0, worker="w", unix_ms=1, isolated=True)]
    )
    history.judge([Note(id="j", attempt=1, verdict="returned"), Note(id="j", attempt=2, verdict="failed")])
    assert history.trials == [
        Trial(2, False, "failed", is_noted=True, worker="w", unix_ms=1),
        Trial(3, True, "died", is_noted=False, worker="w", unix_ms=1),
    ]
    history.judge([Note(id="j", attempt=3, verdict="died")])
    assert history.trials[-1] == Trial(3, True, "died", is_noted=True, worker="w", unix_ms=1)


def test_a_verdict_of_a_later_minor_counts_as_a_failed_attempt() -> None:
    history = read_history([started(1), started(2)])
    history.judge([Note(id="j", attempt=1, verdict="preempted"), Note(id="j", attempt=2, verdict="preempted")])
    assert [(trial.attempt, trial.verdict, trial.is_noted) for trial in history.trials] == [
        (1, "failed", True),
        (2, "failed", True),
    ]
    assert history.verdict == "failed"
    assert verdict_of(Note(id="j", attempt=1, verdict="died")) == "died"


def test_a_closed_journal_says_so_until_somebody_takes_the_job_over() -> None:
    ends = Started(id="j", attempt=2, index=1, worker="closer", unix_ms=1, closing=True)
    history = read_history([started(1), delta(1, 0, "a", [1]), ends])
    assert (history.is_ending, history.attempts, history.trials, history.text) == (True, 2, [], "a")
    history.apply(started(3, 1))
    assert not history.is_ending
