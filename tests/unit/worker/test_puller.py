"""What becomes of a delivery: it starts in a slot, goes back at once, goes for good, or is left alone."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import Delivery
from mesh.broker.topology import consumer_states
from mesh.policies.tiers import TierWeights
from mesh.server import EmbeddedServer
from mesh.worker import credits, puller
from mesh.worker.puller import Puller
from tests.clocks import Hands
from tests.running import MODEL, wait_until
from tests.wire import Wire

AWAY_S = 3600.0
ACKS = "$JS.ACK."
PULLS = "$JS.API.CONSUMER.MSG.NEXT."


class Pulling:
    """A puller, and what it was given to start."""

    def __init__(self, broker: Broker, capacity: int = 10) -> None:
        self.started: list[Delivery] = []
        self.is_held_up = False
        self.broker = broker
        self.puller = Puller(broker, MODEL, capacity, lambda: self.is_held_up, self.started.append)

    async def begin(self) -> "Pulling":
        """Pull, until a waiting pull is open on every consumer."""
        await self.puller.prepare(TierWeights())
        self.puller.ticked()
        await wait_until(lambda: self.puller.open_pulls == 3 and self._all_wait())
        await self.broker.connection.request("$JS.API.INFO")
        return self

    @property
    def jobs(self) -> list[str]:
        return [each.job for each in self.started]

    def _all_wait(self) -> bool:
        return all(each.waits for each in self.puller._credits._states.values())


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting pull stays open for a whole test."""
    monkeypatch.setattr(credits, "WAIT_IDLE_S", 50.0)
    monkeypatch.setattr(credits, "WAIT_S", 50.0)


@pytest.fixture
async def pulling(broker: Broker, wire: Wire) -> AsyncIterator[Pulling]:
    made = await Pulling(broker).begin()
    yield made
    made.puller.close()


async def submit(peer: Broker, job: str, tenant: str = "t", tier: str = "standard") -> None:
    subject = peer.names.request(MODEL, tier, tenant, "x")
    await peer.queue.submit(subject, b'{"id":"%s","prompt":"a"}' % job.encode(), "", "json", "", 5.0)


async def was_delivered(wire: Wire, job: str, speaker: Broker) -> None:
    """The job was sent to a puller, and what that said about it was heard."""
    await wait_until(lambda: any(each.reply.startswith(ACKS) and job.encode() in each.payload for each in wire.seen))
    await speaker.connection.request("$JS.API.INFO")  # its answer comes after the delivery
    await wire.settle(speaker.connection)


def said(wire: Wire) -> list[bytes]:
    """What was said about deliveries, in order."""
    return [each.payload for each in wire.on(ACKS)]


async def test_a_delivery_starts_and_holds_a_slot_until_it_is_released(pulling: Pulling, peer: Broker) -> None:
    free = pulling.puller.free
    await submit(peer, "j1")
    await wait_until(lambda: pulling.jobs == ["j1"])
    await wait_until(lambda: pulling.puller.open_pulls == 3)
    assert pulling.puller.free == free - 1
    pulling.puller.released()
    assert pulling.puller.free == free


async def test_a_delivery_that_lay_in_the_socket_of_a_suspended_process_is_left_alone(
    pulling: Pulling, peer: Broker, wire: Wire, hands: Hands
) -> None:
    """It is read before the overdue tick."""
    hands.advance(AWAY_S)
    await submit(peer, "j1")
    await was_delivered(wire, "j1", pulling.broker)
    assert pulling.jobs == []
    assert said(wire) == [], "to hand it back would take it from the worker that has it now"


async def test_a_delivery_is_left_alone_also_when_the_overdue_tick_came_first(
    pulling: Pulling, peer: Broker, wire: Wire, hands: Hands
) -> None:
    """An event loop runs overdue timers before it reads its sockets."""
    hands.advance(AWAY_S)
    pulling.puller.ticked()
    await submit(peer, "j1")
    await was_delivered(wire, "j1", pulling.broker)
    assert pulling.jobs == []
    assert said(wire) == []


async def test_while_a_suspension_is_suspected_nothing_is_pulled_and_afterwards_it_is(
    pulling: Pulling, peer: Broker, wire: Wire, hands: Hands
) -> None:
    hands.advance(AWAY_S)
    pulling.puller.ticked()
    await submit(peer, "j1")
    await was_delivered(wire, "j1", pulling.broker)
    assert pulling.puller.open_pulls == 2
    before = len(wire.on(PULLS))
    pulling.puller.pump()
    await wire.settle(pulling.broker.connection)
    assert len(wire.on(PULLS)) == before
    hands.advance(puller.TICK_S)
    pulling.puller.ticked()
    await submit(peer, "j2")
    await wait_until(lambda: pulling.jobs == ["j2"])
    assert pulling.puller.free == 10 - 1 - pulling.puller.open_pulls, "what was left alone holds no slot"


async def test_a_loop_that_was_only_busy_starts_what_comes(pulling: Pulling, peer: Broker, hands: Hands) -> None:
    hands.advance(pulling.puller._settings.ack_wait_s / 2)
    await submit(peer, "j1")
    await wait_until(lambda: pulling.jobs == ["j1"])


async def test_what_comes_while_nothing_may_begin_is_handed_back_at_once(
    pulling: Pulling, peer: Broker, wire: Wire
) -> None:
    pulling.is_held_up = True
    await submit(peer, "j1")
    await was_delivered(wire, "j1", pulling.broker)
    assert pulling.jobs == []
    assert said(wire) == [b"-NAK"]
    pulls = len(wire.on(PULLS))
    pulling.puller.pump()
    await wire.settle(pulling.broker.connection)
    assert len(wire.on(PULLS)) == pulls, "nothing is pulled meanwhile"
    pulling.is_held_up = False
    pulling.puller.pump()
    await wait_until(lambda: pulling.jobs == ["j1"])


async def test_what_comes_after_the_stop_is_handed_back_and_nothing_more_is_pulled(
    pulling: Pulling, peer: Broker, wire: Wire
) -> None:
    pulling.puller.stop()
    assert not pulling.puller.emptied.is_set()
    for number, tier in enumerate(("interactive", "standard", "batch")):
        await submit(peer, f"j{number}", tier=tier)
    await wait_until(pulling.puller.emptied.is_set)
    await wire.settle(pulling.broker.connection)
    assert pulling.jobs == []
    assert said(wire) == [b"-NAK"] * 3
    assert pulling.puller.open_pulls == 0
    pulling.puller.pump()
    assert pulling.puller.open_pulls == 0


async def test_a_request_without_a_tenant_that_has_a_name_goes_for_good(
    pulling: Pulling, peer: Broker, wire: Wire
) -> None:
    """There is no subject for its Result, so no worker could ever end it."""
    await submit(peer, "j1", tenant="ten!ant")
    await was_delivered(wire, "j1", pulling.broker)
    assert pulling.jobs == []
    (term,) = said(wire)
    assert term.startswith(b"+TERM ")
    await submit(peer, "j2")
    await wait_until(lambda: pulling.jobs == ["j2"])


async def test_an_engine_with_one_slot_hands_back_what_it_cannot_start(
    broker: Broker, peer: Broker, wire: Wire
) -> None:
    tiny = await Pulling(broker, capacity=1).begin()
    await submit(peer, "j1")
    await wait_until(lambda: tiny.jobs == ["j1"])
    await submit(peer, "j2", tier="batch")
    await was_delivered(wire, "j2", broker)
    assert tiny.jobs == ["j1"]
    assert said(wire) == [b"-NAK"]
    tiny.puller.released()
    await wait_until(lambda: tiny.jobs == ["j1", "j2"])
    tiny.puller.close()


async def test_after_a_loss_of_the_connection_it_pulls_anew(
    pulling: Pulling, wire: Wire, mesh_server: EmbeddedServer, broker: Broker
) -> None:
    broker.connection.listen(pulling.puller.connection_changed)
    await mesh_server.stop(kill=True)
    await wait_until(lambda: pulling.puller.open_pulls == 0)
    assert pulling.puller.free == 10
    await mesh_server.start()
    await broker.connection.wait_connected(10)

    async def is_started() -> bool:
        pulling.puller.pump()
        return pulling.jobs == ["j1"]

    await submit(broker, "j1")
    await wait_until(is_started)


async def test_a_consumer_that_was_deleted_is_declared_anew(
    pulling: Pulling, peer: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller, "REPAIR_S", 0.01)
    repairing = asyncio.create_task(pulling.puller.repair())
    consumer = peer.names.consumer(MODEL, "standard", 0)
    await peer.connection.request(f"$JS.API.CONSUMER.DELETE.{peer.names.requests_stream}.{consumer}")

    async def is_there() -> bool:
        return consumer in await consumer_states(peer.connection, peer.names.requests_stream)

    await wait_until(is_there)
    repairing.cancel()
    await asyncio.gather(repairing, return_exceptions=True)
