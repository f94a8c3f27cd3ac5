"""What redriving decides, by what the job left behind."""

from typing import Any

import msgspec
import pytest

from mesh.control.deadletters.redrive import (
    ANY_LANE,
    RedrivePlan,
    Traces,
    as_json,
    attempts_of,
    decide,
    read_request,
    submission,
)
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Delta, Event, Note, Request, Result, Started, Status

BURIAL = RedrivePlan(request_sequence=7, stored_unix_ms=1000, buried_unix_ms=2000)
REQUEST = Request(id="j", prompt="Hello")
NOW = 10_000


def started(sequence: int, attempt: int = 1, **more: Any) -> Started:
    return Started(id="j", attempt=attempt, index=0, worker="w", unix_ms=1500, sequence=sequence, **more)


def result(created: int, status: Status = "failed") -> Result:
    return Result(id="j", tenant="t", model="m", status=status, text="", created_unix_ms=created)


DELTA = Delta(id="j", attempt=1, index=0, text="a", token_ids=[1, 2])
OWN: list[tuple[int, Event | None]] = [(3, started(7)), (4, None), (5, result(1000))]


def traces(**given: Any) -> Traces:
    found: dict[str, Any] = {"is_queued": False, "is_deployed": True, "journal": OWN, "result": result(1000)}
    return Traces(**(found | {"result_sequence": 9, "result_unix_ms": 2001} | given))


def verb(found: Traces, request: Request | None = REQUEST, has_deadline: bool = False) -> str:
    return decide(BURIAL, request, found, NOW, has_deadline).verb


def test_everything_of_the_buried_run_goes_and_nothing_beyond() -> None:
    decision = decide(BURIAL, REQUEST, traces(), NOW, False)
    assert (decision.verb, decision.journal_last, decision.result_last) == ("redrive", 5, 9)
    bare = decide(BURIAL, REQUEST, traces(journal=[], result=None, result_sequence=0), NOW, False)
    assert (bare.verb, bare.journal_last, bare.result_last) == ("redrive", 0, 0)


@pytest.mark.parametrize(
    "journal",
    [
        OWN,
        [(5, result(1000))],  # the rest is past its age
        [(3, started(6)), (4, started(7, 2)), (5, result(1000))],  # it had taken over from a lost request
        [(4, None)],  # a redrive that was cut off: the notes are left
        [(3, started(7)), (4, DELTA), (5, started(7, 2, closing=True))],
    ],
)
def test_a_journal_of_the_buried_run_is_no_later_run(journal: list[tuple[int, Event | None]]) -> None:
    assert verb(traces(journal=journal)) == "redrive"


@pytest.mark.parametrize(
    "found",
    [
        {"journal": [(6, started(8))]},
        {"journal": [(6, DELTA)]},  # a later run that streams for longer than events are kept
        {"journal": [*OWN, (6, started(8))]},
        {"journal": [(6, result(2500))]},
        {"result": result(2500)},
        {"result": result(0, "cancelled"), "result_unix_ms": 2500},  # by no worker, which says not when it was stored
        {"result": result(1000, "finished")},
        {"journal": [(5, result(1000, "finished"))], "result": None},
    ],
)
def test_a_job_that_ran_later_or_finished_only_loses_its_letter(found: dict[str, Any]) -> None:
    assert verb(traces(**found)) == "settle"


def test_a_result_that_says_not_when_its_request_was_stored_counts_by_its_age() -> None:
    assert verb(traces(result=result(0, "cancelled"), result_unix_ms=1999)) == "redrive"


def test_what_cannot_run_now_is_skipped() -> None:
    late = Request(id="j", prompt="Hello", deadline_unix_ms=NOW)
    assert verb(traces(), late) == "skip"
    assert verb(traces(), late, has_deadline=True) == "redrive"
    assert verb(traces(), Request(id="j", prompt="Hello", deadline_unix_ms=NOW + 1)) == "redrive"
    assert verb(traces(is_queued=True)) == "skip"
    assert verb(traces(is_deployed=False)) == "skip"
    assert decide(RedrivePlan(0, 1000, 2000), REQUEST, traces(), NOW, False).verb == "skip"
    assert verb(traces(), None) == "redrive"


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_request_gets_what_it_lacks_and_keeps_the_rest(encoding: codec.Encoding) -> None:
    body = codec.encode({"prompt": "Hello", "later": {"a": [1, None, "ä"]}}, encoding)
    again = submission(BURIAL, JobKey("t", "s7"), body, encoding, 5000)
    fields = (msgspec.json if encoding == "json" else msgspec.msgpack).decode(again.body)
    assert fields == {"prompt": "Hello", "later": {"a": [1, None, "ä"]}, "id": "s7", "deadline_unix_ms": 5000}
    assert again.message_id == "redrive-7"


def test_a_request_that_lacks_nothing_stays_as_it_is() -> None:
    body = b'{"prompt":  "Hello", "id": "j", "id": "j"}'
    assert submission(BURIAL, JobKey("t", "j"), body, "json", None).body == body


def test_a_field_that_nobody_can_read_does_not_cost_the_job_its_id() -> None:
    body = b'{"prompt": "Hello", "later": 1e999}'
    request, _ = read_request(submission(BURIAL, JobKey("t", "s7"), body, "json", None).body, "json")
    assert request == Request(id="s7", prompt="Hello")


@pytest.mark.parametrize("body", [b"", b"\xff", b"[1]", b"null", b"[" * 100_000])
def test_what_is_no_map_is_named_by_its_message_id(body: bytes) -> None:
    again = submission(BURIAL, JobKey("t", "j"), body, "json", 5000)
    assert (again.affinity, again.body, again.message_id) == (ANY_LANE, body, "t.j")


def test_a_map_that_is_no_request_is_named_by_its_id() -> None:
    again = submission(BURIAL, JobKey("t", "j"), b'{"prompt": 5}', "json", None)
    assert codec.identity_of(again.body, "json") == "j"
    assert again.affinity == ANY_LANE


def test_a_body_is_shown_as_json_whatever_is_in_it() -> None:
    body = msgspec.msgpack.encode({"prompt": "ä", "metadata": {"b": b"\x00", 3: msgspec.msgpack.Ext(5, b"x")}})
    shown = as_json(body, "msgpack")
    assert shown is not None
    assert msgspec.json.decode(shown)["prompt"] == "ä"
    assert as_json(b"\xff", "json") is None


def test_attempts_tell_who_and_how_far_and_how_they_ended() -> None:
    events: list[Event] = [started(7), DELTA, started(7, 2), started(7, 3, closing=True)]
    notes = [Note(id="j", attempt=2, verdict="failed", reason="out of memory")]
    first, second = attempts_of(events, notes)
    assert (first.number, first.tokens, first.outcome) == (1, 2, "")
    assert (second.number, second.tokens, second.outcome) == (2, 0, "failed: out of memory")
