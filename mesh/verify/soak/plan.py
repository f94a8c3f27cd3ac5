"""What a soak will do: its requests and its faults, all from one seed. Pure.

The same seed asks the same requests and strikes with the same kinds of faults after the same pauses. What they meet
depends on the machine, so a seed makes a run alike, not equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh.protocol.messages import TIERS, Tier
from mesh.verify.soak.history import FaultKind, JobKind, Reading

TENANTS = ("default", "acme")
TOPICS = ("the sea", "a fox", "the old mill", "a lantern", "the ferry", "three owls", "a clock", "the baker")

# Shares of the requests; the rest is plain. Poison comes by count, so that how many there are is known beforehand.
POISON_EVERY = 500
SHARES: dict[JobKind, float] = {
    "cancel": 0.04,
    "deadline": 0.02,
    "stumble": 0.02,
    "twice": 0.02,
    "restart": 0.01,
    "wreck": 0.003,
}
SILENT = 0.15  # of the requests: without a stream of events
LIVE, LATE = 0.5, 0.1  # of the requests: followed by a reader
TOKENS = (8, 40)  # of output; the engine needs some 10 ms for each
LONG_TOKENS = (250, 400)  # of a job that is to be cancelled: one that goes on all the same is then seen to

# How often each kind of fault, against the others.
WEIGHTS: dict[FaultKind, float] = {"kill": 5.0, "stop": 3.0, "cut": 2.0, "reset": 2.0, "slow": 1.5, "server": 1.0}
PAUSE_S = (0.2, 0.8)  # between faults
ZOMBIE = (1.2, 2.2)  # ack_waits that a suspended or cut off worker is away: it wakes up when its jobs are others'
SERVER_AWAY_S = (0.1, 0.6)
SLOW_S = (1.0, 3.0)


class SoakChance(Protocol):
    """What is needed of random.Random."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float) -> float: ...
    def randint(self, a: int, b: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """A request to be made."""

    job: str
    tenant: str
    tier: Tier
    kind: JobKind
    reading: Reading
    fields: dict[str, Any] = field(default_factory=dict)  # of mesh.Client.submit
    after_s: float = 0.0  # cancel: from submit to the cancel. reading late: to the reader. deadline: to the deadline


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to come."""

    pause_s: float  # since the one before
    kind: FaultKind
    pick: int  # which of those that can be hit
    for_s: float  # how long it lasts, where it lasts


def wishes(rng: SoakChance, count: int, poison_every: int = POISON_EVERY) -> Iterator[Wish]:
    """The requests of a run, `count` of them, in the order in which they are submitted."""
    for number in range(count):
        kind = _kind(rng.random())
        if poison_every and number % poison_every == poison_every // 2:
            kind = "poison"
        yield _wish(rng, number, kind)


def faults(
    rng: SoakChance, ack_wait_s: float, weights: dict[FaultKind, float], pause_s: tuple[float, float] = PAUSE_S
) -> Iterator[Fault]:
    """The faults of a run, without end; whoever strikes stops when the run is done."""
    while True:
        wait_s = rng.uniform(*pause_s)
        kind = _weighed(rng.random(), weights)
        pick = rng.randint(0, 1 << 16)
        away_s = rng.uniform(*ZOMBIE) * ack_wait_s
        for_s = {"server": rng.uniform(*SERVER_AWAY_S), "slow": rng.uniform(*SLOW_S)}.get(kind, away_s)
        yield Fault(wait_s, kind, pick, for_s)


def _kind(share: float) -> JobKind:
    for kind, size in SHARES.items():
        if share < size:
            return kind
        share -= size
    return "plain"


def _wish(rng: SoakChance, number: int, kind: JobKind) -> Wish:
    silent, reads = rng.random() < SILENT, rng.random()
    fields: dict[str, Any] = {
        "prompt": f"Tell me of {TOPICS[rng.randint(0, len(TOPICS) - 1)]}, and of number {number}.",
        "max_tokens": rng.randint(*(LONG_TOKENS if kind == "cancel" else TOKENS)),
        "stream": not silent,
    }
    draw = rng.random()
    if draw < 0.5:
        fields["temperature"] = 0
    elif draw < 0.75:
        fields["seed"] = number
    if rng.random() < 0.1:
        fields["stop"] = [" owl", "🌙"]
    after_s = rng.uniform(0.05, 1.5)
    if kind == "poison":
        fields["metadata"] = {"simulate": {"exit_after": 0}}
    elif kind == "stumble":
        fields["metadata"] = {"simulate": {"fail_after": rng.randint(1, 6), "times": 1}}
    elif kind == "wreck":
        fields["metadata"] = {"simulate": {"die_after": rng.randint(1, 6), "fresh_only": True}}
    elif kind == "restart":
        fields["on_worker_loss"] = "restart"
    if kind in ("cancel", "deadline", "restart", "stumble", "wreck"):
        fields["stream"] = True
    reading: Reading = "live" if reads < LIVE else "late" if reads < LIVE + LATE else "none"
    if kind in ("cancel", "twice"):
        reading = "live"
    tenant = TENANTS[rng.randint(0, len(TENANTS) - 1)]
    tier = TIERS[rng.randint(0, len(TIERS) - 1)]
    return Wish(f"soak-{number}", tenant, tier, kind, reading, fields, after_s)


def _weighed(share: float, weights: dict[FaultKind, float]) -> FaultKind:
    """The kind on which `share`, from 0 to 1, falls."""
    left = share * sum(weights.values())
    for kind, weight in weights.items():
        left -= weight
        if left < 0:
            return kind
    return next(reversed(weights))
