"""The next tier is chosen by weight."""

import math
from collections import Counter

import pytest

from mesh.errors import ConfigError
from mesh.policies.tiers import TierScheduler, TierWeights
from mesh.protocol.messages import TIERS


def test_the_highest_tier_is_served_first() -> None:
    assert TierScheduler(TierWeights()).choose(set(TIERS)) == "interactive"
    assert TierScheduler(TierWeights()).choose({"batch", "standard"}) == "standard"


def test_full_load_is_shared_in_the_proportion_of_the_weights() -> None:
    scheduler = TierScheduler(TierWeights())
    served = Counter(scheduler.choose(TIERS) for _ in range(210))
    assert served == {"interactive": 160, "standard": 40, "batch": 10}


def test_a_tier_alone_gets_everything() -> None:
    scheduler = TierScheduler(TierWeights())
    assert {scheduler.choose(["batch"]) for _ in range(50)} == {"batch"}


def test_a_tier_that_was_idle_saves_nothing_up() -> None:
    scheduler = TierScheduler(TierWeights())
    for _ in range(1000):
        scheduler.choose(["batch"])
    served = [scheduler.choose(TIERS) for _ in range(42)]
    assert Counter(served)["interactive"] <= 34
    for _ in range(1000):
        scheduler.choose(["interactive"])
    served = [scheduler.choose(TIERS) for _ in range(42)]
    assert 1 <= Counter(served)["batch"] <= 4


def test_what_was_not_there_is_given_back() -> None:
    one, other = TierScheduler(TierWeights()), TierScheduler(TierWeights())
    for _ in range(7):
        other.refund(other.choose(["standard"]), 1)
    assert [one.choose(TIERS) for _ in range(21)].count("standard") == [other.choose(TIERS) for _ in range(21)].count(
        "standard"
    )


@pytest.mark.parametrize("weight", [0, -1, 1e6, math.inf, math.nan])
@pytest.mark.parametrize("tier", TIERS)
def test_a_weight_that_would_starve_a_tier_is_refused(tier: str, weight: float) -> None:
    with pytest.raises(ConfigError, match=tier) as refused:
        TierWeights(**{tier: weight})
    assert refused.value.key == "tier-weights"
