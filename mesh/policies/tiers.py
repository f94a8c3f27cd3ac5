"""Chooses the tier to serve next: the highest first, and no tier starves. Pure.

Stride scheduling: each tier has a pass value that grows by 1/weight for every job of the tier. The tier with the
smallest pass value is next. Under full load, tiers share the engine in proportion to their weights; a lone tier gets
all of it. Source: Waldspurger and Weihl, "Stride Scheduling", MIT/LCS/TM-528, 1995.
"""

from collections.abc import Collection
from dataclasses import dataclass

from mesh.errors import ConfigError
from mesh.protocol.messages import TIERS


@dataclass(frozen=True, slots=True)
class TierWeights:
    """Each tier's share of jobs under full load; only the ratios matter."""

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
    """Chooses a tier for each free slot, from the tiers served before."""

    def __init__(self, weights: TierWeights) -> None:
        self._stride: dict[str, float] = {tier: 1.0 / getattr(weights, tier) for tier in TIERS}
        self._pass: dict[str, float] = dict.fromkeys(TIERS, 0.0)
        self._now = 0.0  # the pass value of the last tier served; an idle tier continues from here

    def choose(self, waiting: Collection[str]) -> str:
        """Return the tier to serve next. `waiting`: the tiers with waiting jobs, at least one."""
        tier = min(
            (tier for tier in TIERS if tier in waiting),
            key=lambda each: (max(self._pass[each], self._now - self._stride[each]), TIERS.index(each)),
        )
        self._pass[tier] = max(self._pass[tier], self._now - self._stride[tier])
        self._now = max(self._now, self._pass[tier])
        self._pass[tier] += self._stride[tier]
        return tier

    def refund(self, tier: str, jobs: int) -> None:
        """Take back `jobs` that were charged to a tier and did not exist."""
        self._pass[tier] -= jobs * self._stride[tier]
