"""Drains workers over NATS: they take no more jobs, finish running ones, and exit, as after SIGTERM.

A worker answers at once. Its presence record disappears when it has exited.
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
LOOK_S = 0.25  # between reads of the presence records, because a killed worker sends no message


@dataclass(frozen=True, slots=True)
class DrainReply:
    """The answer of one worker to a drain request."""

    worker: str
    answer: DrainAnswer | None  # None: no answer
    why: str = ""  # there is no answer


async def choose(broker: Broker, workers: Collection[str], model: str | None) -> list[str]:
    """Returns the names of the given workers, and of all workers of `model`.

    Raises:
        ConfigError: a worker is not alive, or the model has none; the message lists live workers.
        TopologyError, BrokerError: there is no mesh, or NATS did not answer.
    """
    present = await broker.workers.all()
    return chosen(present, workers, model)


def chosen(present: Sequence[Presence], workers: Collection[str], model: str | None) -> list[str]:
    """Chooses as `choose` from the `present` workers, in their order."""
    have = ", ".join(f"{each.worker} ({each.model})" for each in present) or "none"
    unknown = [each for each in workers if each not in {one.worker for one in present}]
    if unknown:
        raise ConfigError(f"no worker {', '.join(unknown)}; there are: {have}", key="worker")
    found = [each.worker for each in present if each.worker in workers or each.model == model]
    if not found:
        raise ConfigError(f"no worker serves {model}; there are: {have}", key="model")
    return found


async def drain(broker: Broker, workers: Sequence[str]) -> list[DrainReply]:
    """Sends the drain request to all workers at once. Workers that already drain continue.

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
    """Waits for the workers that answered to exit. Returns those alive after their grace period and DRAIN_MARGIN_S.

    `on_look` receives the workers still alive after each read.
    """
    loop = asyncio.get_running_loop()
    answers = [each.answer for each in told if each.answer is not None]
    left = {each.worker for each in answers}
    end_s = loop.time() + max((each.grace_s for each in answers), default=0.0) + DRAIN_MARGIN_S
    store = broker.workers
    while left and loop.time() < end_s:
        try:
            there = [each for each in await store.all() if each.worker in left]
        except BrokerError:  # NATS is away for a moment; the workers drain without it
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
        return DrainReply(worker, None, "it is gone, or its engine is restarting")
    except BrokerTimeoutError:
        return DrainReply(worker, None, f"no answer within {ANSWER_S:g} s: it may be suspended, or cut off")
    except msgspec.MsgspecError:
        return DrainReply(worker, None, "its answer cannot be read: another version of the mesh?")
