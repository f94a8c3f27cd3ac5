"""What an operator reads of one job's events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.jobs.timeline import attempts, folded, prompt_of, summary, timeline
from mesh.protocol.messages import Delta, ErrorInfo, Event, Message, Note, Request, Result, Started, Status


def begun(attempt: int, index: int = 0, worker: str = "w-1", **more: bool) -> Started:
    return Started(id="j", attempt=attempt, index=index, worker=worker, unix_ms=1, **more)


def delta(attempt: int, index: int, count: int = 1) -> Delta:
    return Delta(id="j", attempt=attempt, index=index, text="x", token_ids=[7] * count)


def ended(status: Status = "finished", attempts: int = 1, error: ErrorInfo | None = None) -> Result:
    return Result(id="j", tenant="t", model="m", status=status, attempts=attempts, error=error)


STORY: list[tuple[int, Event | Note]] = [
    (1003, begun(1)),
    (1040, delta(1, 0)),
    (1050, delta(1, 1)),
    (1060, delta(1, 2, 3)),
    (1500, begun(2, 5, "w-2")),
    (1510, delta(2, 5)),
    (1600, Note(id="j", attempt=2, verdict="failed", reason="no memory")),
    (1700, begun(3, 6, "w-1", isolated=True)),
    (1720, delta(3, 6)),
    (1730, ended(attempts=3)),
]


def test_moments_are_timed_from_the_moment_the_request_was_stored() -> None:
    found = timeline(STORY, 1000)
    assert [(each.at_ms, each.kind) for each in found[:3]] == [(0, "stored"), (3, "started"), (40, "tokens")]
    assert (found[-1].at_ms, found[-1].text) == (730, "finished")
    assert timeline(STORY, 0)[0].at_ms == 0  # when it was stored is not known: from the first event on
    assert timeline([], 0) == []


def test_attempts_say_how_each_ended() -> None:
    found = attempts(STORY, 1000, [])
    assert [(each.number, each.worker, each.index, each.tokens, each.isolated) for each in found] == [
        (1, "w-1", 0, 5, False),
        (2, "w-2", 5, 1, False),
        (3, "w-1", 6, 1, True),
    ]
    assert [each.outcome for each in found] == [
        "lost with its worker; its outcome is unknown",
        "failed: no memory",
        "finished",
    ]
    assert [(each.at_ms, each.took_ms) for each in found] == [(3, 57), (500, 10), (700, 20)]


def test_the_newest_attempt_runs_unless_its_worker_is_gone() -> None:
    running = STORY[:2]
    assert attempts(running, 1000, [])[0].outcome == "runs"
    assert attempts(running, 1000, ["w-1"])[0].outcome.startswith("lost")


def test_a_journal_that_was_closed_to_end_the_job_is_no_attempt() -> None:
    story: list[tuple[int, Event | Note]] = [
        (1, begun(1, closing=True)),
        (2, ended("cancelled", 0, ErrorInfo(code="cancelled", message="on request"))),
    ]
    assert attempts(story, 1, []) == []
    assert [each.kind for each in timeline(story, 1)] == ["stored", "closed", "result"]
    assert timeline(story, 1)[-1].text == "cancelled, on request"


def test_the_reason_of_a_failure_has_its_code() -> None:
    (moment,) = timeline([(1, ended("failed", error=ErrorInfo(code="engine_error", message="no memory")))], 0)
    assert moment.text == "failed, engine_error: no memory"


def test_runs_of_tokens_are_folded_after_the_first_of_each_attempt() -> None:
    found = folded(timeline(STORY, 1000))
    assert [(each.kind, each.index, each.tokens, each.events) for each in found if each.kind == "tokens"] == [
        ("tokens", 0, 1, 1),
        ("tokens", 1, 4, 2),
        ("tokens", 5, 1, 1),
        ("tokens", 6, 1, 1),
    ]
    assert next(each for each in found if each.events == 2).at_ms == 60  # of the last


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.booleans()), max_size=30))
def test_folding_loses_no_token_and_no_other_event(steps: list[tuple[int, int, bool]]) -> None:
    story, index = [], 0
    for unix_ms, (attempt, count, is_delta) in enumerate(steps, 1):
        story.append((unix_ms, delta(attempt, index, count) if is_delta else begun(attempt, index)))
        index += count if is_delta else 0
    whole = timeline(story, 1)
    short = folded(whole)
    assert sum(each.tokens for each in short) == sum(each.tokens for each in whole)
    assert sum(each.events for each in short) == len(whole)
    assert [each for each in short if each.kind != "tokens"] == [each for each in whole if each.kind != "tokens"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(prompt="secret"), "prompt of 6 characters"),
        (Request(messages=[Message(role="user", content="secret")]), "1 chat messages of 6 characters"),
        (Request(prompt_token_ids=[1, 2]), "prompt of 2 token ids"),
        (Request(input=["sec", "ret"]), "2 texts of 6 characters to embed"),
    ],
)
def test_a_summary_says_how_much_was_asked_and_not_what(request_: Request, expected: str) -> None:
    found = summary(request_, "", 99, "json")
    assert (found.input, found.bytes, found.fields) == (expected, 99, {})
    assert prompt_of(request_) in ("secret", [{"role": "user", "content": "secret"}], [1, 2], ["sec", "ret"])


def test_a_summary_has_the_fields_that_were_given() -> None:
    found = summary(Request(id="j", prompt="x", max_tokens=5, metadata={"team": "a"}), "", 9, "json")
    assert found.fields == {"max_tokens": 5, "metadata": {"team": "a"}}
    assert summary(None, "the body is empty", 0, "json").input == "no request: the body is empty"
