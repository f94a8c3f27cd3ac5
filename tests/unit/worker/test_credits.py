"""How many jobs to pull, and from where."""

import pytest

from mesh.policies.tiers import TierWeights
from mesh.protocol.messages import TIERS
from mesh.worker.credits import STALE_S, WAIT_IDLE_S, WAIT_NARROW_S, Credits, Pull, Source


def sources(lanes: int = 1) -> list[Source]:
    return [Source(f"m-{tier}-{lane}", tier, lane) for tier in TIERS for lane in range(lanes)]


def books(capacity: int, lanes: int = 1) -> Credits:
    return Credits(capacity, sources(lanes), TierWeights())


def looked(credits: Credits, now_s: float = 0.0) -> Credits:
    """The same after every consumer was found empty."""
    for ask in credits.plan(now_s):
        credits.ended(ask.source.consumer, now_s, empty=True)
    return credits


def asked(asks: list[Pull]) -> dict[str, int]:
    return {ask.source.consumer: ask.batch for ask in asks}


def test_capacity_is_one_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        books(0)


def test_a_new_worker_looks_everywhere_before_it_waits() -> None:
    asks = books(10).plan(0.0)
    assert {ask.source.tier for ask in asks if ask.expires_s is None} == set(TIERS)
    assert sum(ask.batch for ask in asks) <= 10


def test_where_nothing_was_found_it_waits_on_every_consumer() -> None:
    credits = looked(books(10))
    asks = credits.plan(0.0)
    assert asked(asks) == dict.fromkeys(["m-interactive-0", "m-standard-0", "m-batch-0"], 1)
    assert {ask.expires_s for ask in asks} == {WAIT_IDLE_S}
    assert credits.free == 7
    assert credits.plan(0.0) == []


def test_a_backlog_is_asked_for_with_every_free_slot() -> None:
    credits = looked(books(10))
    credits.plan(0.0)
    credits.delivered("m-batch-0", pending=100, accepted=True)
    credits.ended("m-batch-0", 0.0, empty=False)
    assert asked(credits.plan(0.0)) == {"m-batch-0": 7}
    assert (credits.running, credits.free) == (1, 0)


def test_no_more_is_asked_for_than_waits_there() -> None:
    credits = looked(books(10))
    credits.plan(0.0)
    credits.delivered("m-batch-0", pending=2, accepted=True)
    credits.ended("m-batch-0", 0.0, empty=False)
    assert asked(credits.plan(0.0)) == {"m-batch-0": 2}


def test_our_own_lanes_are_asked_first() -> None:
    credits = looked(books(30, lanes=4))
    asks = credits.plan(0.0)
    for ask in asks:
        if ask.source.tier == "batch":
            credits.delivered(ask.source.consumer, pending=50, accepted=True)
            credits.ended(ask.source.consumer, 0.0, empty=False)
    plan = asked(credits.plan(0.0, frozenset({2})))
    assert plan == {"m-batch-2": credits._capacity - 4 - 8}


def test_a_consumer_that_broke_is_left_alone_for_a_while() -> None:
    credits = looked(books(10))
    credits.plan(0.0)
    credits.ended("m-batch-0", 1.0, empty=False, pause_s=0.2)
    assert credits.plan(1.1) == []
    assert asked(credits.plan(1.2)) == {"m-batch-0": 1}


def test_a_consumer_not_looked_at_for_long_may_have_jobs() -> None:
    credits = looked(books(10))
    asks = credits.plan(STALE_S + 0.01)
    assert {ask.expires_s for ask in asks} == {None}


def test_an_engine_with_one_slot_waits_on_every_consumer_at_once() -> None:
    credits = looked(books(1, lanes=4), 0.0)
    for _ in range(12):  # one free slot looks at one consumer at a time
        looked(credits, 0.0)
    asks = credits.plan(0.0)
    assert len(asks) == 12
    assert {ask.expires_s for ask in asks} == {WAIT_IDLE_S}
    assert credits.accepts()
    credits.delivered("m-batch-0", 0, accepted=True)
    credits.ended("m-batch-0", 0.0, empty=False)
    assert not credits.accepts()
    credits.delivered("m-batch-1", 0, accepted=False)
    credits.ended("m-batch-1", 0.0, empty=False)
    assert credits.running == 1
    assert credits.plan(0.0) == []
    credits.released()
    assert asked(credits.plan(0.0)) == {"m-batch-1": 1}, "what was handed back is known to wait there"


def test_with_fewer_credits_than_consumers_they_take_turns_faster() -> None:
    credits = looked(books(3))
    credits.delivered("m-batch-0", 0, accepted=True)
    asks = credits.plan(0.0)
    assert len(asks) == 2
    assert {ask.expires_s for ask in asks} == {WAIT_NARROW_S}


def test_a_full_worker_asks_for_nothing() -> None:
    credits = looked(books(3))
    for tier in TIERS:
        credits.delivered(f"m-{tier}-0", 9, accepted=True)
        credits.ended(f"m-{tier}-0", 0.0, empty=False)
    assert credits.plan(0.0) == []
    assert credits.plan(10.0) == []


def test_a_tier_that_is_being_asked_keeps_its_turn() -> None:
    """Slots are not given away to a lower tier while the answer of the higher one is a round trip away."""
    credits = looked(books(5))
    credits.plan(0.0)
    for tier in ("interactive", "batch"):
        credits.delivered(f"m-{tier}-0", pending=50, accepted=True)
        credits.ended(f"m-{tier}-0", 0.0, empty=False)
    assert asked(credits.plan(0.0)) == {"m-interactive-0": 1, "m-batch-0": 1}
    credits.released()
    assert credits.plan(0.0) == []
    assert credits.free == 1
    credits.delivered("m-interactive-0", pending=49, accepted=True)
    credits.ended("m-interactive-0", 0.0, empty=False)
    assert asked(credits.plan(0.0)) == {"m-interactive-0": 1}
