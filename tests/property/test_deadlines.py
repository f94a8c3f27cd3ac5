"""A request is ended by others once, and never before its deadline and its grace are over."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.protocol.timing import EXPIRY_GRACE_MS
from mesh.reconcile.deadlines import Deadlines

requests = st.dictionaries(st.integers(1, 200), st.integers(0, 20_000), max_size=60)
sweeps = st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 200), st.integers(0, 20)), max_size=20)


@given(requests, sweeps)
def test_no_sweep_ends_a_request_early_or_twice(
    deadline_of: dict[int, int], sweeps: list[tuple[int, int, int]]
) -> None:
    deadlines, ended = Deadlines(), set[int]()
    for sequence, deadline_unix_ms in deadline_of.items():
        deadlines.note(sequence, deadline_unix_ms)
    for now_unix_ms, first, most in sweeps:
        found = deadlines.due(now_unix_ms, first, most)
        assert len(found) <= most
        assert not ended & set(found)
        assert all(sequence >= first and deadline_of[sequence] + EXPIRY_GRACE_MS <= now_unix_ms for sequence in found)
        ended |= set(found)


@given(requests, st.integers(0, 30_000))
def test_a_sweep_ends_all_that_is_over(deadline_of: dict[int, int], now_unix_ms: int) -> None:
    deadlines = Deadlines()
    for sequence, deadline_unix_ms in deadline_of.items():
        deadlines.note(sequence, deadline_unix_ms)
    over = {sequence for sequence, at_ms in deadline_of.items() if at_ms + EXPIRY_GRACE_MS <= now_unix_ms}
    assert set(deadlines.due(now_unix_ms, 0, len(deadline_of))) == over
    assert len(deadlines) == len(deadline_of) - len(over)
