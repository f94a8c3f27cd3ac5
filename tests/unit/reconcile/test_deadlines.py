"""Which queued requests are past their deadline, and their grace."""

from mesh.protocol.timing import EXPIRY_GRACE_MS
from mesh.reconcile.deadlines import Deadlines

DEADLINE_MS = 1_700_000_000_000


def due(deadlines: Deadlines, now_unix_ms: int, first: int = 0, most: int = 100) -> list[int]:
    return deadlines.due(now_unix_ms, first, most)


def noted(*pairs: tuple[int, int]) -> Deadlines:
    made = Deadlines()
    for sequence, deadline_unix_ms in pairs:
        made.note(sequence, deadline_unix_ms)
    return made


def test_the_worker_that_runs_a_job_has_a_grace_to_end_it() -> None:
    deadlines = noted((7, DEADLINE_MS))
    assert due(deadlines, DEADLINE_MS) == []
    assert due(deadlines, DEADLINE_MS + EXPIRY_GRACE_MS - 1) == []
    assert due(deadlines, DEADLINE_MS + EXPIRY_GRACE_MS) == [7]


def test_a_request_is_due_once() -> None:
    deadlines = noted((7, DEADLINE_MS))
    assert due(deadlines, DEADLINE_MS + EXPIRY_GRACE_MS) == [7]
    assert due(deadlines, DEADLINE_MS + 10 * EXPIRY_GRACE_MS) == []
    assert len(deadlines) == 0


def test_the_earliest_deadline_comes_first_and_the_rest_stay_noted() -> None:
    deadlines = noted((1, DEADLINE_MS + 2), (2, DEADLINE_MS), (3, DEADLINE_MS + 1))
    assert due(deadlines, DEADLINE_MS + EXPIRY_GRACE_MS + 2, most=2) == [2, 3]
    assert due(deadlines, DEADLINE_MS + EXPIRY_GRACE_MS + 2, most=2) == [1]


def test_a_request_that_left_the_queue_is_not_due() -> None:
    deadlines = noted((1, DEADLINE_MS), (2, DEADLINE_MS))
    assert due(deadlines, DEADLINE_MS + EXPIRY_GRACE_MS, first=2) == [2]
    assert len(deadlines) == 0
