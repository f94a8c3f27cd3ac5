"""Why a job waits."""

from typing import Any

import pytest
from msgspec.structs import replace

from mesh.control.jobs.job_state import JobSeen
from mesh.control.jobs.pending_reasons import QueueContext, pending_reasons
from mesh.control.status.checks import FAR_MS
from mesh.control.status.depth import QueueDepth, WorkerSeen
from tests.unit.control.samples import SEEN, WORKER

QUEUED = replace(SEEN, state="queued", model="m", tier="standard", deadline_ms=243_000)
QUEUE = QueueDepth(model="m", tier="standard", jobs=3, waiting=3, in_flight=0)
HIGHER = QueueDepth(model="m", tier="interactive", jobs=9, waiting=9, in_flight=0)
FREE = WorkerSeen(presence=replace(WORKER, running=1, capacity=4), beat_unix_ms=1, age_ms=1)
FULL = replace(FREE, presence=replace(WORKER, running=4, capacity=4))
PLACE = QueueContext(queue=QUEUE, queues=[QUEUE], workers=[FREE], ahead=2, ack_wait_ms=10_000)


def reasons(seen: JobSeen = QUEUED, **place: Any) -> dict[str, str]:
    return {each.code: each.text for each in pending_reasons(seen, replace(PLACE, **place))}


def test_a_job_in_line_says_how_many_come_before_it_and_when_it_expires() -> None:
    assert reasons() == {
        "position": "2 jobs of its model and tier wait before it",
        "deadline": "it expires in 4m if it has not ended by then",
    }
    assert reasons(ahead=0)["position"] == "it is the next job of its model and tier"
    assert reasons(ahead=1)["position"] == "1 job of its model and tier waits before it"


@pytest.mark.parametrize(
    ("place", "code", "text"),
    [
        ({"workers": []}, "no_worker", "no worker of model m is alive"),
        ({"workers": [FULL]}, "full", "the workers of m are full: 4 of 4 slots taken"),
        (
            {"workers": [replace(FREE, presence=replace(WORKER, state="draining"))]},
            "not_ready",
            "the workers of m are all draining",
        ),
        ({"queue": replace(QUEUE, pause_left_ms=65_000)}, "paused", "m/standard is paused for another 1m"),
        ({"queue": replace(QUEUE, pause_left_ms=FAR_MS)}, "paused", "m/standard is paused until it is resumed"),
        (
            {"queue": replace(QUEUE, is_declared=False)},
            "undeclared",
            "no queue is declared for m/standard: a worker of any model ends it as failed",
        ),
        ({"queues": [HIGHER, QUEUE]}, "tier", "9 jobs of higher tiers get most of the slots meanwhile"),
        ({"ahead": None}, "delivered", "it was delivered to a worker that has not started it, or handed it back"),
    ],
)
def test_each_hindrance_is_told(place: dict[str, Any], code: str, text: str) -> None:
    found = reasons(**place)
    assert found[code] == text
    assert set(found) <= {code, "position", "deadline"}


def test_a_job_between_attempts_says_how_the_last_one_ended() -> None:
    seen = replace(QUEUED, state="retrying", attempt=2, reason="failed: no memory")
    assert reasons(seen, ahead=None)["retrying"] == (
        "attempt 2 is over (failed: no memory); it is delivered again after a pause"
    )
    gone = reasons(replace(seen, reason="worker w-1 is gone"), ahead=None)["retrying"]
    assert gone.endswith("another worker takes over, 10 s after the last renewal at the latest")


def test_a_job_that_runs_waits_for_nothing() -> None:
    assert pending_reasons(replace(QUEUED, state="running"), PLACE) == []


def test_a_deadline_that_has_passed_is_told() -> None:
    assert reasons(replace(QUEUED, deadline_ms=-5))["deadline"] == "its deadline has passed: it is about to expire"
