"""Pauses the queue of a model, or of one of its tiers, and lets it go on. Used by `mesh pause`, `resume` and `top`.

A queue is all lanes of one tier of one model. What runs goes on; what waits is kept, and deadlines still count.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.audit.operator import Operator
from mesh.broker.broker import Broker
from mesh.broker.topology.pause import Lane, Lanes
from mesh.errors import InvalidRequestError, ModelNotFoundError
from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import check_token

# JetStream knows no pause without an end; nobody's queue waits that long.
FOR_EVER_S = 100 * 365 * 86_400.0
END_S = 0.1  # a resumed queue's pause ends this much later by itself, which serves the pulls that wait


@dataclass(frozen=True, slots=True)
class PauseTarget:
    """Which queues are meant."""

    model: str
    tier: str | None = None  # None: every tier

    def __str__(self) -> str:
        return self.model if self.tier is None else f"{self.model}/{self.tier}"

    def takes(self, lane: Lane) -> bool:
        """Whether this lane is one of them."""
        return lane.model == self.model and self.tier in (None, lane.tier)


@dataclass(frozen=True, slots=True)
class PausableQueue:
    """One tier of one model, over all its lanes."""

    model: str
    tier: str
    waiting: int  # jobs that were never delivered
    running: int  # jobs that workers hold
    lanes: int
    paused_lanes: int  # fewer than `lanes` only where somebody else paused some
    pause_s: float  # seconds until the last of them goes on by itself; 0: none is paused

    @property
    def is_for_ever(self) -> bool:
        """Whether it waits for a `resume`."""
        return self.pause_s > FOR_EVER_S / 2


@dataclass(frozen=True, slots=True)
class PauseOutcome:
    """What a pause or a resume came to."""

    before: list[PausableQueue]  # as it was
    after: list[PausableQueue]  # the same queues now


def read_target(text: str) -> PauseTarget:
    """`chat` or `chat/batch`.

    Raises:
        InvalidRequestError: it reads otherwise.
    """
    model, slash, tier = text.partition("/")
    if slash and tier not in TIERS:
        raise InvalidRequestError(
            f"{text!r} is not a model, or model/tier with a tier of {', '.join(TIERS)}", field="target"
        )
    return PauseTarget(check_token("model", model), tier or None)


def queues_of(lanes: Iterable[Lane]) -> list[PausableQueue]:
    """The lanes summed up, by model and then from the highest tier to the lowest."""
    found: dict[tuple[str, str], list[Lane]] = {}
    for lane in lanes:
        found.setdefault((lane.model, lane.tier), []).append(lane)
    queues = [
        PausableQueue(
            model=model,
            tier=tier,
            waiting=sum(each.waiting for each in parts),
            running=sum(each.running for each in parts),
            lanes=len(parts),
            paused_lanes=sum(1 for each in parts if each.pause_s),
            pause_s=max(each.pause_s for each in parts),
        )
        for (model, tier), parts in found.items()
    ]
    return sorted(queues, key=lambda each: (each.model, TIERS.index(each.tier) if each.tier in TIERS else len(TIERS)))


async def pause(broker: Broker, target: PauseTarget, for_s: float | None) -> PauseOutcome:
    """Have no job of these queues delivered for `for_s` seconds; None: until `resume`. A new pause replaces the old.

    Raises:
        ModelNotFoundError: nobody declared such a queue; the message lists those that exist.
        BrokerError: NATS did not answer; some lanes may be paused, and pausing again completes it.
    """
    lanes = Lanes(broker)
    before = _chosen(await lanes.all(), target)
    span_s = FOR_EVER_S if for_s is None else for_s
    until_unix_ms = await lanes.clock_unix_ms() + int(span_s * 1000)
    await asyncio.gather(*(lanes.pause(each.consumer, until_unix_ms) for each in before))
    await Operator(broker).did("paused", model=target.model, tier=target.tier or "", for_s=for_s)
    return await _outcome(lanes, before, target)


async def resume(broker: Broker, target: PauseTarget) -> PauseOutcome:
    """Have the jobs of these queues delivered again; those that are not paused stay as they are.

    Raises:
        ModelNotFoundError, BrokerError: as `pause`.
    """
    lanes = Lanes(broker)
    before = _chosen(await lanes.all(), target)
    paused = [each.consumer for each in before if each.pause_s]
    if paused:
        end_unix_ms = await lanes.clock_unix_ms() + int(END_S * 1000)
        await asyncio.gather(*(lanes.pause(each, end_unix_ms) for each in paused))
        await asyncio.sleep(END_S)
        await asyncio.gather(*(lanes.resume(each) for each in paused))
        await Operator(broker).did("resumed", model=target.model, tier=target.tier or "")
    return await _outcome(lanes, before, target)


async def _outcome(lanes: Lanes, before: list[Lane], target: PauseTarget) -> PauseOutcome:
    after = [each for each in await lanes.all() if target.takes(each)]
    return PauseOutcome(queues_of(before), queues_of(after))


def _chosen(lanes: list[Lane], target: PauseTarget) -> list[Lane]:
    chosen = [each for each in lanes if target.takes(each)]
    if not chosen:
        have = ", ".join(sorted({each.model for each in lanes})) or "none"
        raise ModelNotFoundError(f"no queue of {target} is declared; there are models: {have}", field="model")
    return chosen
