"""The plan of a soak: its requests and its faults, all from one seed. Pure.

The same seed gives the same requests, and the same kinds of faults after the same pauses. Their effects depend on the
machine, so two runs of one seed are similar, not equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh.protocol.messages import TIERS, Tier
from mesh.verify.soak.history import FaultKind, JobKind, Reading

TENANTS = ("default", "acme")
TOPICS = ("the sea", "a fox", "the old mill", "a lantern", "the ferry", "three owls", "a clock", "the baker")

# Shares of the requests; the rest is plain. Poison comes by count, so that its number is known in advance.
POISON_EVERY = 500
SHARES: dict[JobKind, float] = {
    "cancel": 0.04,
    "deadline": 0.02,
    "stumble": 0.02,
    "twice": 0.02,
    "restart": 0.01,
    "wreck": 0.003,
}
SILENT = 0.15  # share of requests without a stream of events
LIVE, LATE = 0.5, 0.1  # shares of requests with a reader
TOKENS = (8, 40)  # of output; the engine needs about 10 ms for each
LONG_TOKENS = (250, 400)  # of a job to cancel, long enough to detect that it continues

# Relative frequency of each kind of fault.
WEIGHTS: dict[FaultKind, float] = {"kill": 5.0, "stop": 3.0, "cut": 2.0, "reset": 2.0, "slow": 1.5, "server": 1.0}
PAUSE_S = (0.2, 0.8)  # between faults
ZOMBIE = (1.2, 2.2)  # ack_waits that a suspended or disconnected worker is away; its jobs have then moved to others
SERVER_AWAY_S = (0.1, 0.6)
SLOW_S = (1.0, 3.0)


class SoakChance(Protocol):
    """The part of random.Random that the plan uses."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float) -> float: ...
    def randint(self, a: int, b: int) -> int: ...


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A planned request."""

    job: str
    tenant: str
    tier: Tier
    kind: JobKind
    reading: Reading
    fields: dict[str, Any] = field(default_factory=dict)  # of mesh.Client.submit
    after_s: float = 0.0  # from the submit to the cancel, to the late reader, or to the deadline


@dataclass(frozen=True, slots=True)
class Fault:
    """A planned fault."""

    pause_s: float  # since the previous fault
    kind: FaultKind
    pick: int  # selects the victim among the possible ones
    for_s: float  # duration, for a fault that lasts


def planned_jobs(rng: SoakChance, count: int, poison_every: int = POISON_EVERY) -> Iterator[PlannedJob]:
    """Yield the `count` requests of a run, in the order of their submits."""
    for number in range(count):
        kind = _kind(rng.random())
        if poison_every and number % poison_every == poison_every // 2:
            kind = "poison"
        yield _job(rng, number, kind)


def faults(
    rng: SoakChance, ack_wait_s: float, weights: dict[FaultKind, float], pause_s: tuple[float, float] = PAUSE_S
) -> Iterator[Fault]:
    """Yield the faults of a run without end; the caller stops when the run is over."""
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


def _job(rng: SoakChance, number: int, kind: JobKind) -> PlannedJob:
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
    return PlannedJob(f"soak-{number}", tenant, tier, kind, reading, fields, after_s)


def _weighed(share: float, weights: dict[FaultKind, float]) -> FaultKind:
    """Return the kind that `share`, from 0 to 1, selects."""
    left = share * sum(weights.values())
    for kind, weight in weights.items():
        left -= weight
        if left < 0:
            return kind
    return next(reversed(weights))
