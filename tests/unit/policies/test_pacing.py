"""A stream rests after a publish that took long to land, and never for longer than it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policies.pacing import MAX_WINDOW_S, RESTS, window_s


def test_quick_acknowledgements_make_no_window():
    assert window_s(0.0) == window_s(0.0004) == 0.0


@pytest.mark.parametrize(("took_s", "wanted_s"), [(0.0006, 0.001), (0.0011, 0.002), (0.0016, 0.004), (0.003, 0.008)])
def test_a_window_is_twice_the_round_trip_up_to_a_power_of_two(took_s, wanted_s):
    assert window_s(took_s) == wanted_s


@given(st.floats(min_value=0, max_value=100))
def test_it_grows_with_the_load_and_is_bounded(took_s):
    found = window_s(took_s)
    assert 0 <= found <= MAX_WINDOW_S
    assert found >= min(MAX_WINDOW_S, took_s * RESTS - 0.001)
    assert found <= window_s(took_s * 2)


@given(st.floats(min_value=0.0005, max_value=1))
def test_windows_end_together(took_s):
    assert (MAX_WINDOW_S / window_s(took_s)).is_integer()
