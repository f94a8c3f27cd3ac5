"""What a reader sees of a job's events, case by case."""

from typing import Any

import pytest

from mesh.client.assembly import Assembly, Gap, Restarted, Shown
from mesh.protocol.messages import Delta, Event, Result, Started


def started(attempt: int, index: int = 0) -> Started:
    return Started(id="j", attempt=attempt, index=index, worker="w", unix_ms=1)


def delta(attempt: int, index: int, text: str, *ids: int, **more: Any) -> Delta:
    return Delta(id="j", attempt=attempt, index=index, text=text, token_ids=list(ids), **more)


def result(text: str, **fields: Any) -> Result:
    known: dict[str, Any] = {"id": "j", "tenant": "t", "model": "m", "status": "finished", "text": text, "attempts": 2}
    return Result(**known | fields)


def fed(*events: Event) -> tuple[Assembly, list[Shown]]:
    assembly = Assembly()
    return assembly, [shown for event in events for shown in assembly.take(event)]


def texts(shown: list[Shown]) -> list[object]:
    return [
        each if isinstance(each, Gap) else type(each) if isinstance(each, Restarted) else each.text for each in shown
    ]


def test_deltas_are_shown_as_they_come() -> None:
    assembly, shown = fed(started(1), delta(1, 0, "a", 1), delta(1, 1, "bc", 2, 3), result("abc"))
    assert texts(shown) == ["a", "bc", "abc"]
    assert (assembly.text, assembly.index) == ("abc", 3)


def test_what_was_shown_is_not_shown_again() -> None:
    _, shown = fed(started(1), delta(1, 0, "a", 1), started(1), delta(1, 0, "a", 1), delta(1, 1, "b", 2))
    assert texts(shown) == ["a", "b"]


def test_a_gap_says_from_where_to_read() -> None:
    assembly, shown = fed(started(1), delta(1, 0, "a", 1), delta(1, 2, "c", 3))
    assert shown[1:] == [Gap(1)]
    assert texts(assembly.take(delta(1, 1, "b", 2)) + assembly.take(delta(1, 2, "c", 3))) == ["b", "c"]


def test_a_worker_that_goes_on_is_not_noticed() -> None:
    _, shown = fed(started(1), delta(1, 0, "a", 1), started(2, 1), delta(2, 1, "b", 2))
    assert texts(shown) == ["a", "b"]


def test_a_worker_that_goes_on_beyond_what_was_read_leaves_a_gap() -> None:
    assembly, shown = fed(started(1), delta(1, 0, "a", 1), started(2, 3))
    assert shown[1:] == [Gap(1)]
    assert texts(assembly.take(delta(1, 1, "bc", 2, 3))) == ["bc"], "the first attempt still counts until then"


def test_an_attempt_whose_start_was_missed_begins_with_its_first_delta() -> None:
    _, shown = fed(started(1), delta(1, 0, "a", 1), delta(2, 1, "b", 2))
    assert texts(shown) == ["a", "b"]


def test_a_worker_that_lost_the_job_is_not_heard() -> None:
    _, shown = fed(started(1), delta(1, 0, "a", 1), started(2, 1), delta(1, 1, "X", 9), delta(2, 1, "b", 2))
    assert texts(shown) == ["a", "b"]


def test_an_attempt_that_begins_again_and_says_the_same_is_silent() -> None:
    _, shown = fed(
        started(1), delta(1, 0, "a", 1), delta(1, 1, "b", 2), started(2), delta(2, 0, "a", 1), delta(2, 1, "bc", 2, 3)
    )
    assert texts(shown) == ["a", "b", "c"]
    assert isinstance(shown[-1], Delta)
    assert shown[-1].index == 2
    assert shown[-1].token_ids == [3]


def test_an_attempt_that_begins_again_and_says_something_else_is_told() -> None:
    assembly, shown = fed(
        started(1), delta(1, 0, "a", 1), delta(1, 1, "b", 2), started(2), delta(2, 0, "a", 1), delta(2, 1, "X", 9)
    )
    assert texts(shown) == ["a", "b", Restarted, "aX"]
    assert isinstance(shown[-1], Delta)
    assert shown[-1].token_ids == [1, 9]
    assert (assembly.text, assembly.index) == ("aX", 2)


@pytest.mark.parametrize(
    "ended", [delta(2, 0, "a", 1, finish_reason="stop"), delta(2, 0, "ab", 1, finish_reason="stop")]
)
def test_an_attempt_that_begins_again_and_ends_sooner_is_told(ended: Delta) -> None:
    """Fewer tokens, with less text or the same: what was shown beyond them is no part of the output."""
    assembly, shown = fed(started(1), delta(1, 0, "ab", 1, 3), started(2), ended)
    assert texts(shown) == ["ab", Restarted, ended.text]
    assert isinstance(shown[-1], Delta)
    assert (shown[-1].index, shown[-1].token_ids) == (0, [1])
    assert (assembly.text, assembly.index) == (ended.text, 1)


def test_what_a_result_shows_in_the_place_of_something_else_begins_at_the_first_token() -> None:
    assembly, _ = fed(started(1), delta(1, 0, "ab", 1, 3), started(2), delta(2, 0, "a", 1))
    restarted, whole = assembly.rest_of(result("xy"))
    assert isinstance(restarted, Restarted)
    assert (whole.index, whole.text) == (0, "xy")


def test_an_attempt_that_begins_again_before_anything_was_shown_is_no_news() -> None:
    _, shown = fed(started(1), started(2), delta(2, 0, "a", 1))
    assert texts(shown) == ["a"]


def test_an_attempt_that_repeats_may_be_repeated_in_turn() -> None:
    _, shown = fed(
        started(1),
        delta(1, 0, "ab", 1, 2),
        started(2),
        delta(2, 0, "a", 1),
        started(3),
        delta(3, 0, "abc", 1, 2, 3),
    )
    assert texts(shown) == ["ab", "c"]


def test_a_repeating_attempt_may_be_taken_over() -> None:
    _, shown = fed(
        started(1),
        delta(1, 0, "abc", 1, 2, 3),
        started(2),
        delta(2, 0, "a", 1),
        started(3, 1),
        delta(3, 1, "bcd", 2, 3, 4),
    )
    assert texts(shown) == ["abc", "d"]


def test_a_gap_while_repeating_is_seen() -> None:
    _, shown = fed(started(1), delta(1, 0, "abc", 1, 2, 3), started(2), delta(2, 1, "b", 2))
    assert shown[-1] == Gap(0)


def test_tokens_that_showed_nothing_may_come_out_differently() -> None:
    assembly, shown = fed(started(1), delta(1, 0, "a", 1), delta(1, 1, "", 2), started(2, 1), delta(2, 1, "é", 7, 8))
    assert texts(shown) == ["a", "", "é"]
    assert assembly.index == 3


def test_after_the_result_nothing_is_shown() -> None:
    assembly, _ = fed(started(1), result("a"))
    assert assembly.take(delta(1, 0, "a", 1)) == []
    assert assembly.take(result("b")) == []


def test_a_result_shows_the_rest_where_its_events_are_gone() -> None:
    assembly, _ = fed(started(1), delta(1, 0, "ab", 1, 2))
    (rest,) = assembly.rest_of(result("abcd"))
    assert (rest.text, rest.index, rest.attempt) == ("cd", 2, 2)
    assert assembly.rest_of(result("abcd")) == []


def test_a_result_that_differs_from_what_was_shown_begins_anew() -> None:
    assembly, _ = fed(started(1), delta(1, 0, "ab", 1, 2))
    again, whole = assembly.rest_of(result("aX"))
    assert isinstance(again, Restarted)
    assert again.text == ""
    assert whole.text == "aX"


def test_a_result_without_text_has_no_rest() -> None:
    assembly, _ = fed(started(1))
    assert assembly.rest_of(Result(id="j", tenant="t", model="m", status="finished", embeddings=[[1.0]])) == []


def test_an_end_that_has_text_but_no_tokens_is_shown_once() -> None:
    """The protocol: the last delta alone may have no token_ids."""
    events: list[Event] = [started(1), delta(1, 0, "a", 1), delta(1, 1, "b", finish_reason="stop")]
    assembly, shown = fed(*events, *events)
    assert texts(shown) == ["a", "b"]
    assert assembly.text == "ab"


def test_a_repeat_that_shows_more_text_for_the_same_tokens_shows_it() -> None:
    """Attempt 1 held the character back; attempt 2 repeats the token and ends, so it lets it go."""
    assembly, shown = fed(started(1), delta(1, 0, "", 7), started(2), delta(2, 0, "a", 7, finish_reason="stop"))
    assert "".join(str(text) for text in texts(shown)) == "a"
    assert assembly.text == "a"


def test_a_whole_attempt_that_was_missed_is_a_gap() -> None:
    """Attempt 2 began again and said something else; attempt 3 goes on from its second token."""
    _, shown = fed(started(1), delta(1, 0, "ab", 1, 2), started(3, 2), delta(3, 2, "z", 26))
    assert any(isinstance(each, Gap) for each in shown)
