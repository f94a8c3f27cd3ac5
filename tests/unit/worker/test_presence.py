"""Which lanes a worker pulls first, as it sees the others of its model."""

from collections.abc import Callable

from mesh.broker.broker import Broker
from mesh.engines.base import EngineInfo
from mesh.policies.affinity import owned_lanes
from mesh.worker.presence import LOOK_EACH_S, PresenceBoard, State, WorkerLoad
from tests.clocks import Hands
from tests.running import MODEL, wait_until

LANES = 16
ALL = frozenset(range(LANES))
INFO = EngineInfo("simulator", "1", MODEL, capacity=4, max_model_len=0)


def board(broker: Broker, worker: str, model: str = MODEL) -> PresenceBoard:
    return PresenceBoard(broker, worker, model, INFO, LANES)


def beat(of: PresenceBoard, state: State) -> None:
    of.beat(WorkerLoad(state, running=0, finished=0, tokens=0), capacity=4)


def is_seen(broker: Broker, *states: tuple[str, State]) -> Callable[[], object]:
    async def seen() -> bool:
        return {(each.worker, each.state) for each in await broker.workers.all()} >= set(states)

    return seen


async def lanes_beside(broker: Broker, state: State, model: str = MODEL) -> frozenset[int]:
    """The lanes of w-1, where w-2 says that it is in this state."""
    own, other = board(broker, "w-1"), board(broker, "w-2", model)
    beat(own, "ready")
    beat(other, state)
    await wait_until(is_seen(broker, ("w-1", "ready"), ("w-2", state)))
    await own.look()
    return own.owned


async def test_two_that_are_ready_share_the_lanes(broker: Broker) -> None:
    owned = await lanes_beside(broker, "ready")
    assert owned == frozenset(owned_lanes("w-1", ["w-1", "w-2"], LANES))
    assert owned < ALL


async def test_a_worker_that_drains_keeps_no_lane(broker: Broker) -> None:
    """It pulls nothing, so the lanes it owned would be everybody's second choice."""
    assert await lanes_beside(broker, "draining") == ALL


async def test_a_worker_that_starts_has_no_lane_yet(broker: Broker) -> None:
    assert await lanes_beside(broker, "starting") == ALL


async def test_a_worker_of_another_model_takes_no_lane(broker: Broker) -> None:
    assert await lanes_beside(broker, "ready", "other") == ALL


async def test_a_worker_that_began_to_drain_gives_its_lanes_to_the_others(broker: Broker, hands: Hands) -> None:
    own, other = board(broker, "w-1"), board(broker, "w-2")
    for each in (own, other):
        beat(each, "ready")
    await wait_until(is_seen(broker, ("w-1", "ready"), ("w-2", "ready")))
    await own.look()
    assert own.owned < ALL
    beat(other, "draining")
    await wait_until(is_seen(broker, ("w-2", "draining")))
    await own.look()
    assert own.owned < ALL, "each worker reads of the others only so often"
    hands.advance(2 * LOOK_EACH_S)
    await own.look()
    assert own.owned == ALL


async def test_who_has_left_is_not_seen(broker: Broker) -> None:
    own = board(broker, "w-1")
    beat(own, "ready")
    await wait_until(is_seen(broker, ("w-1", "ready")))
    own.leave()

    async def is_gone() -> bool:
        return await broker.workers.all() == []

    await wait_until(is_gone)
