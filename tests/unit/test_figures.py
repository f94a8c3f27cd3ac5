"""Figures as people read them."""

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.figures import many, quantile, span


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_quantiles_ascend_within_what_was_seen(values: list[float]) -> None:
    found = [quantile(values, share) for share in (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)]
    slack = 1e-6 * max(1.0, *values)
    assert all(low <= high + slack for low, high in itertools.pairwise(found))
    assert (found[0], found[-1]) == (min(values), max(values))
    assert found[3] == pytest.approx(statistics.median(values))


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=60), st.integers(1, 99))
def test_a_quantile_is_the_one_of_the_standard_library(values: list[int], share: int) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[share - 1]
    assert quantile(values, share / 100) == pytest.approx(expected)


def test_of_nothing_a_quantile_is_nothing() -> None:
    assert quantile([], 0.5) == 0.0


def test_a_span_is_told_in_its_largest_unit() -> None:
    spans = (-5, 0, 340, 4000, 4290, 42_000, 7 * 60_000, 3 * 3_600_000, 12 * 86_400_000)
    assert [span(each) for each in spans] == ["0ms", "0ms", "340ms", "4s", "4.2s", "42s", "7m", "3h", "12d"]


def test_what_is_counted_has_its_number() -> None:
    assert (many(1, "job"), many(0, "job"), many(12_000, "query", "queries")) == ("1 job", "0 jobs", "12,000 queries")
