"""A stream pauses after a slowly acknowledged publish, but never longer than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policies.pacing import CLOCK_S, MAX_WINDOW_S, RESTS, end_s, window_s


def test_quick_acknowledgements_make_no_window() -> None:
    assert window_s(0.0) == window_s(0.0004) == 0.0


@pytest.mark.parametrize(("took_s", "wanted_s"), [(0.0006, 0.001), (0.0011, 0.002), (0.0016, 0.004), (0.003, 0.008)])
def test_a_window_is_twice_the_round_trip_up_to_a_power_of_two(took_s: float, wanted_s: float) -> None:
    assert window_s(took_s) == wanted_s


@given(st.floats(min_value=0, max_value=100))
def test_it_grows_with_the_load_and_is_bounded(took_s: float) -> None:
    found = window_s(took_s)
    assert 0 <= found <= MAX_WINDOW_S
    assert found >= min(MAX_WINDOW_S, took_s * RESTS - 0.001)
    assert found <= window_s(took_s * 2)


@given(st.floats(min_value=0.0005, max_value=1))
def test_windows_end_together(took_s: float) -> None:
    assert (MAX_WINDOW_S / window_s(took_s)).is_integer()


@given(st.integers(min_value=0, max_value=10**7), st.sampled_from([0.001, 0.008, 0.02, 0.05, 0.3, 1.0]))
def test_what_is_sent_as_a_window_ends_begins_the_next_one(number: int, window_s: float) -> None:
    ends_s = number * window_s
    for sent_s in (ends_s, round(ends_s, 3), ends_s - CLOCK_S / 4):
        assert end_s(sent_s, window_s) == pytest.approx(ends_s + window_s, abs=1e-6)
    if window_s > CLOCK_S:
        assert end_s(ends_s - CLOCK_S, window_s) == pytest.approx(ends_s, abs=1e-6)
