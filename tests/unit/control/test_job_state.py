"""Where a job stands, by the newest that was written about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesh.control.jobs.job_state import STATES, in_order, job_state, without_lost
from mesh.protocol.messages import Delta, LaterEvent, Note, Result, Started, Usage
from tests.unit.control.samples import SEEN

STARTED = Started(id="j", attempt=2, index=7, worker="w-1", unix_ms=1)
DELTA = Delta(id="j", attempt=2, index=7, text="ab", token_ids=[1, 2])
RESULT = Result(id="j", tenant="t", model="m", status="finished", attempts=2, usage=Usage(completion_tokens=9))
FAILED = Note(id="j", attempt=2, verdict="failed", reason="out of memory")


@pytest.mark.parametrize(
    ("event", "note", "expected"),
    [
        (None, None, ("queued", 0, 0, "")),
        (STARTED, None, ("running", 2, 7, "")),
        (DELTA, None, ("running", 2, 9, "")),
        (DELTA, FAILED, ("retrying", 2, 9, "failed: out of memory")),
        (STARTED, Note(id="j", attempt=2, verdict="returned"), ("retrying", 2, 7, "returned")),
        (DELTA, Note(id="j", attempt=1, verdict="failed"), ("running", 2, 9, "")),  # of the attempt before
        (LaterEvent(type="progress", id="j", attempt=2, index=9), None, ("running", 2, 9, "")),
        (LaterEvent(type="progress", id="j", attempt=2, index=9), FAILED, ("retrying", 2, 9, "failed: out of memory")),
        (RESULT, FAILED, ("ending", 2, 9, "")),
        (replace(STARTED, attempt=3, closing=True), None, ("ending", 2, 7, "")),
    ],
)
def test_the_newest_event_and_note_say_where_a_job_stands(
    event: Delta | LaterEvent | Result | Started | None, note: Note | None, expected: tuple[str, int, int, str]
) -> None:
    found = job_state(event, note)
    assert (found.state, found.attempt, found.tokens, found.reason) == expected


def test_a_job_whose_worker_is_gone_waits_for_the_next() -> None:
    running = replace(SEEN, worker="w-1", attempt=1)
    assert without_lost(running, {"w-1"}).state == "running"
    lost = without_lost(running, {"w-2"})
    assert (lost.state, lost.reason) == ("retrying", "worker w-1 is gone")
    assert without_lost(replace(running, worker=""), set()).state == "running"  # nobody says who did it
    assert without_lost(replace(running, state="queued"), set()).state == "queued"


@given(st.lists(st.tuples(st.sampled_from(STATES), st.integers(1, 99))))
def test_those_that_run_come_first_and_the_oldest_of_each_state(pairs: list[tuple[str, int]]) -> None:
    found = in_order([replace(SEEN, state=state, sequence=sequence) for state, sequence in pairs])
    assert [(STATES.index(each.state), each.sequence) for each in found] == sorted(
        (STATES.index(state), sequence) for state, sequence in pairs
    )
