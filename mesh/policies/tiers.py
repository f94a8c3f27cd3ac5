"""Which tier is served next: highest first, the lowest never starved. Pure.

Stride scheduling: each tier has a pass value that grows by 1/weight for every job it is given, and the tier
with the smallest is next. Under full load tiers share the engine in proportion to their weights; a tier alone
gets all of it. Source: Waldspurger and Weihl, "Stride Scheduling", MIT/LCS/TM-528, 1995.
"""

from collections.abc import Collection
from dataclasses import dataclass

from mesh.errors import ConfigError
from mesh.protocol.messages import TIERS


@dataclass(frozen=True, slots=True)
class TierWeights:
    """Jobs given to each tier under full load, in proportion."""

    interactive: float = 16.0
    standard: float = 4.0
    batch: float = 1.0

    def __post_init__(self) -> None:
        for tier in TIERS:
            if not 0 < getattr(self, tier) < 1e6:
                raise ConfigError(
                    f"the weight of {tier} must be more than 0: a tier of weight 0 would wait for ever",
                    key="tier-weights",
                )


class TierScheduler:
    """Remembers who was served; asked for each free slot."""

    def __init__(self, weights: TierWeights) -> None:
        self._stride: dict[str, float] = {tier: 1.0 / getattr(weights, tier) for tier in TIERS}
        self._pass: dict[str, float] = dict.fromkeys(TIERS, 0.0)
        self._now = 0.0  # the pass of the last tier served: where one that was idle joins

    def choose(self, waiting: Collection[str]) -> str:
        """The tier to serve next, among those with jobs waiting (one at least)."""
        tier = min(
            (tier for tier in TIERS if tier in waiting),
            key=lambda each: (max(self._pass[each], self._now - self._stride[each]), TIERS.index(each)),
        )
        self._pass[tier] = max(self._pass[tier], self._now - self._stride[tier])
        self._now = max(self._now, self._pass[tier])
        self._pass[tier] += self._stride[tier]
        return tier

    def refund(self, tier: str, jobs: int) -> None:
        """`jobs` of those given to a tier were not there after all."""
        self._pass[tier] -= jobs * self._stride[tier]
