"""A worker is taken for dead only if nobody hears it and the server agrees; then its jobs go back, once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Connection, Subscription, open_connection
from mesh.broker.transport.options import ConnectOptions
from mesh.protocol import codec
from mesh.protocol.messages import LivenessRecord, Pong, Presence
from mesh.protocol.subjects import Names
from mesh.reconcile import failure_detector
from mesh.reconcile.failure_detector import FailureDetector
from mesh.server import EmbeddedServer
from mesh.worker.liveness import BYE, LIST
from tests.running import wait_until
from tests.wire import Wire

ACKS = "$JS.ACK."
NAMES = Names()
OPERATOR = "operator"  # no worker, so it watches all of them


class HandWorker:
    """A worker as others see it, written by hand."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.broker = Broker(connection, NAMES)
        self.name = name
        self.held: list[str] = []
        self.pings = 0
        self.lists = 0  # how often all leases were asked for
        self.is_silent = False
        self._ears: Subscription | None = None

    async def live(self) -> "HandWorker":
        """Begin a life, and say so to all."""
        await self.write_record()
        self.hear()
        self.connection.publish(NAMES.system("hello"), self.name.encode())
        return self

    def hear(self) -> None:
        self._ears = self.connection.subscribe(NAMES.system("ping", self.name), self._pinged)

    async def go_deaf(self) -> None:
        """Nobody listens on its subject any more, as when its connection is closed."""
        assert self._ears is not None
        self._ears.close()
        await self.connection.request("$JS.API.INFO")

    async def write_record(self, session: str = "s1") -> None:
        await self.broker.liveness.write(LivenessRecord(worker=self.name, session=session, is_alive=True), None)

    def take(self, ack_subject: str) -> None:
        self.held.append(ack_subject)
        self.connection.publish(NAMES.leases(self.name), b"+" + ack_subject.encode())

    def give(self, ack_subject: str) -> None:
        self.held.remove(ack_subject)
        self.connection.publish(NAMES.leases(self.name), b"-" + ack_subject.encode())

    async def is_watched(self) -> None:
        """Whoever watches has asked for all leases, and for a sign of life since."""
        await wait_until(lambda: self.lists)
        await self.is_known()

    async def is_known(self) -> None:
        """Whoever watches has our leases: only then it asks for less than all of them."""
        before = self.pings - self.lists
        await wait_until(lambda: self.pings - self.lists > before)

    def _pinged(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        self.pings += 1
        self.lists += payload == LIST
        if not self.is_silent:
            answer = msgspec.json.encode(self.held) if payload == LIST else codec.encode(Pong(born_unix_ms=1))
            self.connection.publish(reply.decode(), answer)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_detector, "PEER_PING_S", 0.02)
    monkeypatch.setattr(failure_detector, "PEER_PATIENCE_S", 0.1)


@pytest.fixture
async def detector(broker: Broker) -> AsyncIterator[FailureDetector]:
    made = FailureDetector(broker, OPERATOR)
    await broker.connection.request("$JS.API.INFO")
    yield made
    await made.close()


Hire = Callable[[str], Awaitable[HandWorker]]


@pytest.fixture
async def hire(mesh_server: EmbeddedServer) -> AsyncIterator[Hire]:
    """Makes workers, each with a connection of its own."""
    async with contextlib.AsyncExitStack() as stack:

        async def made(name: str) -> HandWorker:
            connection = await open_connection(ConnectOptions(servers=(mesh_server.url,), name=name))
            stack.push_async_callback(connection.close)
            return await HandWorker(connection, name).live()

        yield made


def handed_back(wire: Wire) -> list[str]:
    return [each.subject for each in wire.on(ACKS) if each.payload == b"-NAK"]


async def record_of(broker: Broker, name: str) -> LivenessRecord:
    found = await broker.liveness.last(name)
    assert found is not None
    assert found.record is not None
    return found.record


async def test_the_jobs_of_a_worker_that_is_gone_are_handed_back_at_once(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire
) -> None:
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a"]
    await worker.is_watched()
    worker.take("$JS.ACK.b")
    worker.take("$JS.ACK.c")
    worker.give("$JS.ACK.a")
    await worker.connection.close()
    await wait_until(lambda: len(handed_back(spy)) == 2)
    assert handed_back(spy) == ["$JS.ACK.b", "$JS.ACK.c"]
    record = await record_of(broker, "w-1")
    assert (record.is_alive, record.by) == (False, OPERATOR)


async def test_its_death_is_on_the_record_before_its_jobs_are_given_away(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire
) -> None:
    """Else a worker that was only cut off would go on with what another runs."""
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a"]
    await worker.is_watched()
    await worker.connection.close()
    await wait_until(lambda: handed_back(spy))
    death, nak = spy.on("mesh.sys.liveness.w-1")[-1], spy.on(ACKS)[0]
    assert spy.answer_to(death) < spy.place_of(nak)


async def test_a_worker_that_is_suspended_keeps_its_jobs_until_their_leases_end(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire
) -> None:
    """It is connected and says nothing; a ping that is not answered in time proves nothing."""
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a"]
    await worker.is_watched()
    worker.is_silent = True
    before = worker.pings
    await wait_until(lambda: worker.pings > before + 60)  # one each 20 ms: the first have waited their second
    assert handed_back(spy) == []
    assert (await record_of(broker, "w-1")).is_alive


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_worker_that_reconnects_in_time_keeps_its_jobs(
    detector: FailureDetector,
    hire: Hire,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    spy: Wire,
    is_silent: bool,
) -> None:
    """Also one that is suspended as soon as it is back: no answer is not the answer that nobody is there."""
    monkeypatch.setattr(failure_detector, "PEER_PATIENCE_S", 0.3)
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a"]
    await worker.is_watched()
    await worker.go_deaf()
    peer = detector._peers["w-1"]
    await wait_until(lambda: peer.burial is not None)
    worker.is_silent = is_silent
    worker.hear()
    await wait_until(lambda: peer.burial is None)
    assert detector._peers["w-1"] is peer
    assert handed_back(spy) == []
    assert (await record_of(broker, "w-1")).is_alive


async def test_a_worker_that_says_farewell_is_not_taken_for_dead(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire
) -> None:
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a"]
    await worker.is_watched()
    worker.connection.publish(NAMES.leases("w-1"), BYE)
    await worker.connection.close()
    await wait_until(lambda: "w-1" not in detector._peers)
    assert handed_back(spy) == []
    assert (await record_of(broker, "w-1")).is_alive


async def test_a_worker_that_renews_its_record_is_alive_whoever_hears_it(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may hear it where this process does not: the server refuses the death."""
    monkeypatch.setattr(failure_detector, "PEER_PATIENCE_S", 0.3)
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a"]
    await worker.is_watched()
    await worker.go_deaf()
    await wait_until(lambda: spy.on("$JS.API.STREAM.MSG.GET.MESH_EVENTS"))  # the record was read
    await worker.write_record()
    await wait_until(lambda: "w-1" not in detector._peers)
    assert (await record_of(broker, "w-1")).is_alive
    assert handed_back(spy) == []


async def test_a_worker_of_which_no_list_was_heard_is_not_buried(
    detector: FailureDetector, broker: Broker, peer: Broker, hire: Hire
) -> None:
    """Who does not know what it holds could hand back too little, and nobody would do the rest."""
    peer.connection.publish(NAMES.system("hello"), b"w-9")
    await (await hire("w-1")).is_watched()  # and so is w-9, in vain
    assert detector._peers["w-9"].burial is None
    assert await broker.liveness.last("w-9") is None


async def test_after_its_own_connection_was_away_it_asks_for_every_lease_anew_and_gives_workers_time(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was announced meanwhile was missed, and a server that restarted is found by some before others."""
    monkeypatch.setattr(failure_detector, "STEADY_S", 0.2)
    worker = await hire("w-1")
    await worker.is_watched()
    before = worker.lists
    began_s = asyncio.get_running_loop().time()
    detector._connection_changed(True)
    worker.held = ["$JS.ACK.a"]
    await wait_until(lambda: worker.lists > before)
    assert asyncio.get_running_loop().time() - began_s >= 0.2
    await worker.is_known()
    await worker.connection.close()
    await wait_until(lambda: handed_back(spy) == ["$JS.ACK.a"])


async def test_a_worker_that_is_gone_is_seen_no_more(detector: FailureDetector, hire: Hire, broker: Broker) -> None:
    """Else its lanes would stay its own until its presence lapses."""
    worker = await hire("w-1")
    presence = Presence(
        worker="w-1",
        model="m",
        state="ready",
        engine="e",
        engine_version="1",
        version="1",
        host="h",
        pid=1,
        capacity=1,
        running=0,
    )
    worker.broker.workers.put(presence)
    await worker.is_watched()
    assert [each.worker for each in await broker.workers.all()] == ["w-1"]
    await worker.connection.close()
    await wait_until(lambda: "w-1" not in detector._peers)
    assert await broker.workers.all() == []


async def test_two_that_notice_a_death_hand_its_jobs_back_once(
    detector: FailureDetector, hire: Hire, peer: Broker, spy: Wire
) -> None:
    other = FailureDetector(peer, "operator-2")
    await peer.connection.request("$JS.API.INFO")
    worker = await hire("w-1")
    worker.held = ["$JS.ACK.a", "$JS.ACK.b"]
    await wait_until(lambda: worker.lists >= 2)
    await worker.is_watched()
    await worker.connection.close()
    await wait_until(lambda: not detector._peers and not other._peers)
    await spy.settle(peer.connection)
    assert handed_back(spy) == ["$JS.ACK.a", "$JS.ACK.b"]
    await other.close()


async def test_a_worker_that_was_buried_and_came_back_is_watched_again(
    detector: FailureDetector, hire: Hire, broker: Broker, spy: Wire
) -> None:
    first = await hire("w-1")
    await first.is_watched()
    await first.connection.close()
    await wait_until(lambda: "w-1" not in detector._peers)
    second = await hire("w-1")
    await second.is_watched()
    assert (await record_of(broker, "w-1")).is_alive


async def test_a_name_that_is_no_token_is_not_watched(detector: FailureDetector, peer: Broker, hire: Hire) -> None:
    peer.connection.publish(NAMES.system("hello"), b"w-1.>")
    worker = await hire("w-2")
    await worker.is_watched()
    assert set(detector._peers) == {"w-2"}
