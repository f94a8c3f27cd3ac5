"""What a replay makes of any recorded requests: ids that meet nobody's, deadlines as far off, a pace that is kept."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.stores.delivery import StoredRequest
from mesh.control.replay.plan import (
    PREFIX,
    Outline,
    ReplayedRequest,
    ReplayMapping,
    ReplayReport,
    ask_of,
    due_s,
    job_id,
    request_now,
)
from mesh.protocol.messages import Request, Result, Timing
from mesh.protocol.subjects import RequestAddress, is_token

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def stored(
    job: str = "job", sequence: int = 1, at_unix_ms: int = 1000, deadline: int | None = None, is_broken: bool = False
) -> StoredRequest:
    request = Request(id=job, prompt="x", deadline_unix_ms=deadline)
    return StoredRequest(
        sequence=sequence,
        address=RequestAddress("chat", "batch", "acme", "0"),
        job=job,
        encoding="json",
        request=None if is_broken else request,
        error=None,
        traceparent="",
        body=b"",
        stored_unix_ms=at_unix_ms,
    )


def asked(found: ReplayedRequest | str) -> ReplayedRequest:
    assert isinstance(found, ReplayedRequest)
    return found


@given(IDS, IDS)
def test_ids_are_tokens_that_differ_from_the_original_and_from_each_other(one: str, two: str) -> None:
    new = job_id("1a2b3c", one)
    assert is_token(new)
    assert new.startswith(PREFIX)
    assert new != one
    assert (new == job_id("1a2b3c", two)) == (one == two)
    assert new != job_id("ffffff", one)


@given(IDS)
def test_what_was_replayed_is_never_replayed_again(job: str) -> None:
    assert ask_of(stored(job_id("1a2b3c", job)), ReplayMapping("ffffff")) == "replays"


def test_what_cannot_be_read_is_left_out() -> None:
    assert ask_of(stored(is_broken=True), ReplayMapping("1")) == "unreadable"


@given(st.integers(1, 10**12), st.integers(0, 10**9), st.integers(1, 10**12))
def test_a_deadline_is_as_far_off_as_the_originals_was(at: int, left: int, now: int) -> None:
    ask = asked(ask_of(stored(at_unix_ms=at, deadline=at + left), ReplayMapping("1")))
    assert request_now(ask, now).deadline_unix_ms == now + left


def test_without_a_deadline_there_is_none() -> None:
    assert request_now(asked(ask_of(stored(), ReplayMapping("1"))), 5).deadline_unix_ms is None


@given(st.lists(st.integers(0, 10**6), min_size=1), st.floats(0.01, 100))
def test_gaps_are_as_recorded_over_the_speed(offsets: list[int], speed: float) -> None:
    times = [10**6 + each for each in sorted(offsets)]
    asks = [asked(ask_of(stored(at_unix_ms=each), ReplayMapping("1"))) for each in times]
    due = [due_s(each, times[0], speed) for each in asks]
    assert due == sorted(due)
    assert due[0] == 0
    assert abs(due[-1] * speed * 1000 - (times[-1] - times[0])) < 1e-3
    assert {due_s(each, times[0], None) for each in asks} == {0.0}


def test_models_are_renamed_one_by_one_or_all() -> None:
    target = ReplayMapping("1", {"chat": "new"}, "rest", "trial")
    assert (target.model_of("chat"), target.model_of("other")) == ("new", "rest")
    ask = asked(ask_of(stored(), target))
    assert (ask.model, ask.tenant, ask.tier) == ("new", "trial", "batch")
    assert ReplayMapping("1").model_of("chat") == "chat"


@given(st.sets(st.integers(1, 200), min_size=1))
def test_requests_that_were_not_recorded_are_counted_where_all_are_read(sequences: set[int]) -> None:
    whole, part = Outline(True), Outline(False)
    for sequence in sorted(sequences):
        found = stored(sequence=sequence, at_unix_ms=sequence)
        for outline in (whole, part):
            outline.note(found, ask_of(found, ReplayMapping("1")))
    assert whole.missing == max(sequences) - min(sequences) + 1 - len(sequences)
    assert part.missing == 0
    assert whole.total == len(sequences)
    assert (whole.first_unix_ms, whole.last_unix_ms) == (min(sequences), max(sequences))


def test_only_jobs_whose_original_is_known_are_compared() -> None:
    report = ReplayReport()
    for sequence, total in ((1, 10), (2, 20), (3, 30)):
        ask = asked(ask_of(stored(sequence=sequence), ReplayMapping("1")))
        timing = Timing(total_ms=total, first_token_ms=None if sequence == 2 else total // 2)
        report.submitted += 1
        report.note(ask, Result(id="x", tenant="t", model="m", status="finished", timing=timing))
    assert report.totals_ms() == ([], [10, 20, 30])
    report.originals = {1: (100, 50), 2: (200, 150)}
    assert report.totals_ms() == ([100, 200], [10, 20])
    assert report.firsts_ms() == ([50], [5])
    assert report.open == 0
