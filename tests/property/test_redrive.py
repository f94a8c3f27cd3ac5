"""Whatever a job left behind, redriving takes nothing that is newer than its dead letter."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.control.deadletters.redrive import Decision, RedrivePlan, Traces, decide, read_request, submission
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Delta, Event, Request, Result, Started

BURIAL = RedrivePlan(request_sequence=7, stored_unix_ms=1000, buried_unix_ms=2000)

ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def run(sequence: int, created: int) -> st.SearchStrategy[list[Event | None]]:
    """The events and notes of one run of the job, its first ones perhaps past their age."""
    begun = Started(id="j", attempt=1, index=0, worker="w", unix_ms=created, sequence=sequence)
    delta = Delta(id="j", attempt=1, index=0, text="a", token_ids=[1])
    ended = Result(id="j", tenant="t", model="m", status="failed", text="", created_unix_ms=created)
    whole: list[Event | None] = [begun, delta, None, begun, delta, delta, None, ended]
    return st.integers(0, len(whole) - 1).map(lambda start: whole[start:])


NEW_BEGUN = Started(id="j", attempt=1, index=0, worker="w", unix_ms=2500, sequence=8)


def decision_on(journal: list[Event | None]) -> tuple[Decision, list[tuple[int, Event | None]]]:
    entries = [(10 + place, event) for place, event in enumerate(journal)]
    found = Traces(is_queued=False, is_deployed=True, journal=entries, result=None, result_sequence=0, result_unix_ms=0)
    return decide(BURIAL, Request(id="j", prompt="Hi"), found, 3000, False), entries


@given(run(7, 1000))
def test_a_run_that_was_buried_is_cleared_whole(journal: list[Event | None]) -> None:
    decision, entries = decision_on(journal)
    assert (decision.verb, decision.journal_last) == ("redrive", entries[-1][0])


@given(run(7, 1000), run(8, 2500), st.data())
def test_a_journal_in_which_a_later_run_wrote_is_left_alone(
    old: list[Event | None], new: list[Event | None], data: DataObject
) -> None:
    """One look sees the beginning of what came; only the oldest of all is past its age."""
    is_old_gone = data.draw(st.booleans())
    whole = new if is_old_gone else [*old, NEW_BEGUN, *new]
    least = 1 if is_old_gone else len(old) + 1
    seen = whole[: data.draw(st.integers(least, len(whole)))]
    decision, _ = decision_on(seen)
    assert decision.verb == ("settle" if any(seen[least - 1 :]) else "redrive")


@given(ids, st.text(min_size=1), st.sampled_from(["json", "msgpack"]), st.one_of(st.none(), st.integers(1, 2**53)))
def test_what_is_stored_again_is_the_same_request_under_the_same_id(
    job: str, prompt: str, encoding: Encoding, deadline: int | None
) -> None:
    body = codec.encode({"prompt": prompt, "temperature": 0.5}, encoding)
    again = submission(BURIAL, JobKey("t", job), body, encoding, deadline)
    request, why = read_request(again.body, encoding)
    assert why == ""
    assert request == Request(id=job, prompt=prompt, temperature=0.5, deadline_unix_ms=deadline)
