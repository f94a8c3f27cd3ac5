"""A message that waited in the socket of a suspended process is suspected, whenever within a tick it is read."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.worker.suspension import Suspension

PERIOD_S = 0.25
LIMIT_S = 2.0

ticks = st.integers(0, 40)
gaps = st.floats(LIMIT_S + 0.01, 3600)
shares = st.floats(0, 0.999)


@given(ticks, gaps, shares, st.booleans(), ticks)
def test_what_lay_longer_than_the_limit_is_always_suspected(
    before: int, gap_s: float, share: float, tick_first: bool, after: int
) -> None:
    suspension, now_s = Suspension(LIMIT_S), 0.0
    suspension.ticked(now_s)
    for _ in range(before):
        now_s += PERIOD_S
        suspension.ticked(now_s)
    now_s += gap_s
    if tick_first:
        suspension.ticked(now_s)
    assert suspension.is_suspected(now_s + share * PERIOD_S)
    for _ in range(after + 2):
        suspension.ticked(now_s)
        now_s += PERIOD_S
    assert not suspension.is_suspected(now_s)


@given(st.lists(st.floats(0, LIMIT_S / 2), max_size=50), st.floats(0, LIMIT_S / 2))
def test_a_loop_that_is_only_busy_is_never_suspected(steps_s: list[float], late_s: float) -> None:
    suspension, now_s = Suspension(LIMIT_S), 0.0
    suspension.ticked(now_s)
    for step_s in steps_s:
        now_s += step_s
        suspension.ticked(now_s)
    assert not suspension.is_suspected(now_s + late_s)
