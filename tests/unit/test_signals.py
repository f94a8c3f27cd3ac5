"""Observers are combined, and a tally counts events without signals."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.signals import CHUNK_TOKENS, GAP_S, EngineDied, Tally, all_of, ignore


def test_all_are_told_in_order() -> None:
    heard = []
    all_of(lambda s: heard.append((1, s)), ignore, lambda s: heard.append((2, s)))(EngineDied("x"))
    assert heard == [(1, EngineDied("x")), (2, EngineDied("x"))]


def test_who_watches_nothing_costs_nothing() -> None:
    assert all_of() is ignore
    assert all_of(ignore, ignore) is ignore
    heard: list[object] = []
    only = heard.append
    assert all_of(ignore, only) is only


@given(st.lists(st.integers(0, 2000)), st.lists(st.floats(0, 100)))
def test_every_event_and_every_wait_is_in_one_bucket(sizes: list[int], waits: list[float]) -> None:
    tally = Tally()
    for tokens in sizes:
        tally.published(tokens)
    for seconds in waits:
        tally.waited(seconds)
    assert sum(tally.events_by_tokens) == tally.events == len(sizes)
    assert tally.event_tokens == sum(sizes)
    assert sum(tally.gaps) == len(waits)


def test_a_bound_belongs_to_its_bucket() -> None:
    tally = Tally()
    tally.published(CHUNK_TOKENS[3])
    tally.published(CHUNK_TOKENS[3] + 1)
    tally.waited(GAP_S[0])
    tally.waited(GAP_S[-1] * 2)
    assert tally.events_by_tokens[3:5] == [1, 1]
    assert (tally.gaps[0], tally.gaps[-1]) == (1, 1)
