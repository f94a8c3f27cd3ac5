"""Tells workers to take no more jobs, finish what runs, and end: over NATS, as SIGTERM does on their own machine.

Used by `mesh drain` and `mesh top`. The worker answers at once; that it has ended shows in its presence.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from mesh.audit.operator import Operator
from mesh.broker.broker import Broker
from mesh.errors import BrokerError, BrokerTimeoutError, ConfigError, UnavailableError
from mesh.protocol.messages import Presence
from mesh.protocol.timing import DRAIN_MARGIN_S
from mesh.worker.commands import DrainAnswer

ANSWER_S = 2.0
LOOK_S = 0.25  # between looks whether they are gone; a worker that is killed meanwhile tells nobody


@dataclass(frozen=True, slots=True)
class DrainReply:
    """What became of telling one worker."""

    worker: str
    answer: DrainAnswer | None  # None: it did not answer
    why: str = ""  # it did not


async def choose(broker: Broker, workers: Collection[str], model: str | None) -> list[str]:
    """The workers that are meant: those named, and all of `model`.

    Raises:
        ConfigError: one is not there, or the model has none; the message lists those that are.
        TopologyError, BrokerError: there is no mesh, or NATS did not answer.
    """
    present = await broker.workers.all()
    return chosen(present, workers, model)


def chosen(present: Sequence[Presence], workers: Collection[str], model: str | None) -> list[str]:
    """The same among the workers that are `present`, as they stand there."""
    have = ", ".join(f"{each.worker} ({each.model})" for each in present) or "none"
    unknown = [each for each in workers if each not in {one.worker for one in present}]
    if unknown:
        raise ConfigError(f"no worker {', '.join(unknown)}; there are: {have}", key="worker")
    found = [each.worker for each in present if each.worker in workers or each.model == model]
    if not found:
        raise ConfigError(f"no worker serves {model}; there are: {have}", key="model")
    return found


async def drain(broker: Broker, workers: Sequence[str]) -> list[DrainReply]:
    """Tell them, all at once. Those that drain already go on as they were.

    Raises:
        BrokerError: NATS itself is away.
    """
    told = list(await asyncio.gather(*(_tell(broker, each) for each in workers)))
    operator = Operator(broker)
    for each in told:
        if each.answer is not None and not each.answer.was_draining:
            await operator.did("drained", worker=each.worker)
    return told


async def wait_gone(
    broker: Broker, told: Sequence[DrainReply], on_look: Callable[[Sequence[Presence]], None]
) -> list[str]:
    """Wait for those that answered to end; the ones that have not, once their grace period and DRAIN_MARGIN_S are over.

    `on_look` gets those still there, now and then.
    """
    loop = asyncio.get_running_loop()
    answers = [each.answer for each in told if each.answer is not None]
    left = {each.worker for each in answers}
    end_s = loop.time() + max((each.grace_s for each in answers), default=0.0) + DRAIN_MARGIN_S
    store = broker.workers
    while left and loop.time() < end_s:
        try:
            there = [each for each in await store.all() if each.worker in left]
        except BrokerError:  # NATS is away for a moment; they go on without it
            await asyncio.sleep(LOOK_S)
            continue
        left = {each.worker for each in there}
        on_look(there)
        if left:
            await asyncio.sleep(LOOK_S)
    return sorted(left)


async def _tell(broker: Broker, worker: str) -> DrainReply:
    try:
        _, payload = await broker.connection.request(broker.names.drain(worker), timeout_s=ANSWER_S)
        return DrainReply(worker, msgspec.json.decode(payload, type=DrainAnswer))
    except UnavailableError:
        return DrainReply(worker, None, "it is gone, or its engine is being started again")
    except BrokerTimeoutError:
        return DrainReply(worker, None, f"no answer within {ANSWER_S:g} s: it may be suspended, or cut off")
    except msgspec.MsgspecError:
        return DrainReply(worker, None, "its answer cannot be read: another version of the mesh?")
