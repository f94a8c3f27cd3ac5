"""Pauses and resumes the queues of a model, or of one of its tiers.

A queue is all lanes of one tier of one model. Running jobs continue, waiting jobs stay, and deadlines still count.
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

# JetStream requires an end of a pause; this one is out of reach.
FOR_EVER_S = 100 * 365 * 86_400.0
END_S = 0.1  # a resume sets the pause's end this far ahead, because only an expiring pause serves open pulls


@dataclass(frozen=True, slots=True)
class PauseTarget:
    """A model, or one of its tiers."""

    model: str
    tier: str | None = None  # None: every tier

    def __str__(self) -> str:
        return self.model if self.tier is None else f"{self.model}/{self.tier}"

    def takes(self, lane: Lane) -> bool:
        """Returns whether the lane belongs to the target."""
        return lane.model == self.model and self.tier in (None, lane.tier)


@dataclass(frozen=True, slots=True)
class PausableQueue:
    """One tier of one model, over all its lanes."""

    model: str
    tier: str
    waiting: int  # jobs that were never delivered
    running: int  # jobs that workers hold
    lanes: int
    paused_lanes: int  # fewer than `lanes` only if another client paused some
    pause_s: float  # seconds until the last pause ends; 0: no lane is paused

    @property
    def is_for_ever(self) -> bool:
        """True if only a `resume` ends the pause."""
        return self.pause_s > FOR_EVER_S / 2


@dataclass(frozen=True, slots=True)
class PauseOutcome:
    """The queues before and after a pause or resume."""

    before: list[PausableQueue]  # as it was
    after: list[PausableQueue]  # the same queues now


def read_target(text: str) -> PauseTarget:
    """Parses `chat` or `chat/batch`.

    Raises:
        InvalidRequestError: the text has another form.
    """
    model, slash, tier = text.partition("/")
    if slash and tier not in TIERS:
        raise InvalidRequestError(
            f"{text!r} is not a model, or model/tier with a tier of {', '.join(TIERS)}", field="target"
        )
    return PauseTarget(check_token("model", model), tier or None)


def queues_of(lanes: Iterable[Lane]) -> list[PausableQueue]:
    """Sums lanes to queues, by model and then from the highest tier to the lowest."""
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
    """Stops the delivery of these queues' jobs for `for_s` seconds; None: until `resume`. Replaces an old pause.

    Raises:
        ModelNotFoundError: no such queue is declared; the message lists those that exist.
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
    """Delivers the jobs of these queues again. Queues that are not paused stay as they are.

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
