"""How the metrics are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.telemetry.shapes import OTHER, BoundedLabel, cumulative, per_token_s


@given(st.lists(st.text(), max_size=100), st.integers(0, 10))
def test_a_label_never_has_more_values_than_it_may(values: list[str], most: int) -> None:
    few = BoundedLabel(most)
    shown = {few(value) for value in values}
    assert len(shown - {OTHER}) <= most
    assert shown <= {*values, OTHER}


def test_who_had_a_name_keeps_it() -> None:
    few = BoundedLabel(2)
    assert [few("a"), few("b"), few("c"), few("a"), few("c")] == ["a", "b", OTHER, "a", OTHER]


@pytest.mark.parametrize(
    ("seconds", "first_s", "tokens", "expected"), [(1.1, 0.1, 11, 0.1), (1, None, 10, None), (1, 0.5, 1, None)]
)
def test_the_time_of_a_token_leaves_the_first_one_out(
    seconds: float, first_s: float | None, tokens: int, expected: float | None
) -> None:
    assert per_token_s(seconds, first_s, tokens) == (expected if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 100), min_size=4, max_size=4))
def test_cumulative_counts_rise_and_end_with_all(counts: list[int]) -> None:
    found = cumulative(counts, (1, 2, 4))
    assert [name for name, _ in found] == ["1.0", "2.0", "4.0", "+Inf"]
    assert [count for _, count in found] == sorted(count for _, count in found)
    assert found[-1][1] == sum(counts)
