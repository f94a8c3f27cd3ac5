"""Sharing between tiers, and of lanes between workers, whatever the load and whoever comes and goes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.policies.affinity import affinity_token, owned_lanes
from mesh.policies.retry import RetryPolicy
from mesh.policies.tiers import TierScheduler, TierWeights
from mesh.protocol.messages import TIERS, Message, Request
from mesh.protocol.subjects import is_token

WEIGHTS = st.builds(
    TierWeights,
    interactive=st.floats(1, 50),
    standard=st.floats(1, 50),
    batch=st.floats(1, 50),
)
SOME = st.sets(st.sampled_from(TIERS), min_size=1)
PAST = st.lists(SOME, max_size=60)  # which tiers had jobs, grant by grant
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
WORKERS = st.sets(st.from_regex(r"w-[0-9a-f]{4}", fullmatch=True), min_size=1, max_size=8)


@given(WEIGHTS, PAST, st.integers(1, 300))
def test_under_full_load_each_tier_gets_its_share_within_two_jobs(
    weights: TierWeights, past: list[set[str]], grants: int
) -> None:
    """Whatever happened before: nothing is saved up by waiting, and nothing is owed."""
    scheduler = TierScheduler(weights)
    for waiting in past:
        scheduler.choose(waiting)
    served = Counter(scheduler.choose(TIERS) for _ in range(grants))
    total = sum(getattr(weights, tier) for tier in TIERS)
    for tier in TIERS:
        share = getattr(weights, tier) / total
        # Once each tier has joined: one job early or late, and what the others had ahead when they joined.
        assert abs(served[tier] - grants * share) <= 2 + len(TIERS) * share


@given(WEIGHTS, PAST, st.lists(SOME, min_size=1, max_size=200))
def test_no_tier_that_keeps_waiting_is_starved(
    weights: TierWeights, past: list[set[str]], later: list[set[str]]
) -> None:
    scheduler = TierScheduler(weights)
    for waiting in past:
        scheduler.choose(waiting)
    total = sum(getattr(weights, tier) for tier in TIERS)
    bound = 2 + len(TIERS) + total / weights.batch
    waits = 0
    for waiting in later:
        waits = 0 if scheduler.choose(waiting | {"batch"}) == "batch" else waits + 1
        assert waits <= bound


@given(WEIGHTS, st.lists(SOME, max_size=100))
def test_only_a_tier_with_jobs_is_served(weights: TierWeights, steps: list[set[str]]) -> None:
    scheduler = TierScheduler(weights)
    for waiting in steps:
        assert scheduler.choose(waiting) in waiting


@given(st.integers(1, 1000), st.floats(0, 100), st.floats(1, 100), st.floats(0, 1000))
def test_waits_before_retries_grow_and_stay_within_their_bound(
    fruitless: int, backoff_s: float, factor: float, most_s: float
) -> None:
    policy = RetryPolicy(backoff_s=backoff_s, backoff_factor=factor, max_backoff_s=most_s)
    if fruitless <= 100:  # beyond, 100**n leaves the floats
        assert 0 <= policy.delay_s(fruitless) <= policy.delay_s(fruitless + 1) <= most_s


@given(TEXT, TEXT, TEXT)
def test_a_token_is_a_token_and_follows_the_session_alone(session: str, prompt: str, other: str) -> None:
    token = affinity_token(Request(prompt=prompt, session=session))
    assert is_token(token)
    assert len(token) == 11
    assert token == affinity_token(Request(messages=[Message(role="user", content=other)], session=session))
    assert affinity_token(Request(prompt=prompt)) == affinity_token(Request(prompt=prompt, max_tokens=7))


@given(WORKERS, st.integers(0, 64))
def test_every_lane_has_exactly_one_owner(workers: set[str], lanes: int) -> None:
    owned = [lane for worker in workers for lane in owned_lanes(worker, workers, lanes)]
    assert sorted(owned) == list(range(lanes))


@given(WORKERS, st.integers(1, 64))
def test_each_worker_comes_to_the_same_whoever_it_hears_of_first(workers: set[str], lanes: int) -> None:
    worker = min(workers)
    assert owned_lanes(worker, sorted(workers), lanes) == owned_lanes(worker, sorted(workers, reverse=True), lanes)
    assert owned_lanes(worker, workers - {worker}, lanes) == owned_lanes(worker, workers, lanes)


@given(WORKERS, st.integers(1, 64))
def test_a_worker_that_joins_takes_lanes_and_moves_no_other(workers: set[str], lanes: int) -> None:
    joined = {*workers, "w-new"}
    for worker in workers:
        before, after = set(owned_lanes(worker, workers, lanes)), set(owned_lanes(worker, joined, lanes))
        assert after <= before
        assert before - after <= set(owned_lanes("w-new", joined, lanes))


def test_lanes_are_spread_over_workers() -> None:
    workers = [f"w-{n}" for n in range(4)]
    counts = [len(owned_lanes(worker, workers, 400)) for worker in workers]
    assert sum(counts) == 400
    assert min(counts) > 60
