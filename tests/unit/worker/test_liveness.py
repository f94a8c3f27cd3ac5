"""A worker is sure that it lives while the server says so, and what it holds is known to those who ask."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from mesh.broker.broker import Broker
from mesh.broker.stores.liveness import LivenessStore
from mesh.broker.stores.purge import purge_subject
from mesh.errors import BrokerTimeoutError, ConfigError
from mesh.protocol import codec
from mesh.protocol.messages import LivenessRecord
from mesh.protocol.timing import LEASES_ANNOUNCED_S
from mesh.worker.liveness import BYE, LIST, Liveness
from tests.clocks import Hands
from tests.running import wait_until
from tests.wire import Wire

NAME = "w-1"
MEMORY_S = 100.0
PING = f"mesh.sys.ping.{NAME}"
LEASES = f"mesh.sys.leases.{NAME}"
DEATH = LivenessRecord(worker=NAME, session="", is_alive=False, by="w-2")


class Living:
    """A worker's liveness, and what it told its worker."""

    def __init__(self, broker: Broker) -> None:
        self.told: list[str] = []
        self.broker = broker
        self.liveness = Liveness(broker, NAME, lambda: self.told.append("dead"), lambda: self.told.append("sure"))
        self._running: asyncio.Task[None] | None = None

    def run(self, period_s: float = 60.0) -> asyncio.Task[None]:
        self._running = asyncio.create_task(self.liveness.run(period_s))
        return self._running

    async def record(self) -> LivenessRecord:
        found = await self.broker.liveness.last(NAME)
        assert found is not None
        assert found.record is not None
        return found.record

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


@pytest.fixture
async def living(broker: Broker) -> AsyncIterator[Living]:
    made = Living(broker)
    await made.liveness.begin(MEMORY_S)
    yield made
    await made.close()


async def ping(peer: Broker, body: bytes = b"") -> bytes:
    _, payload = await peer.connection.request(PING, body)
    return payload


async def test_a_life_begins_with_a_record_and_a_word_to_all(broker: Broker, wire: Wire) -> None:
    living = Living(broker)
    assert not living.liveness.is_confirmed
    await living.liveness.begin(MEMORY_S)
    assert living.liveness.is_confirmed
    assert living.told == ["sure"]
    record = await living.record()
    assert (record.worker, record.is_alive) == (NAME, True)
    assert record.session
    await wire.settle(broker.connection)
    assert [each.payload for each in wire.on("mesh.sys.hello")] == [NAME.encode()]


async def test_once_the_connection_was_lost_nothing_is_sure_until_the_server_says_so(living: Living) -> None:
    living.liveness.disturbed()
    assert not living.liveness.is_confirmed
    living.run()
    await wait_until(lambda: living.liveness.is_confirmed)
    assert living.told == ["sure", "sure"]


async def test_an_answer_from_before_the_loss_confirms_nothing(broker: Broker) -> None:
    """The record may have been overwritten between that answer and the return of the connection."""

    class Interrupted(LivenessStore):
        async def write(self, record: LivenessRecord, last: int | None) -> int:
            written = await super().write(record, last)
            worker.liveness.disturbed()
            return written

    broker.__dict__["liveness"] = Interrupted(broker)
    worker = Living(broker)
    await worker.liveness.begin(MEMORY_S)
    assert not worker.liveness.is_confirmed
    assert worker.told == []


async def test_a_worker_that_was_declared_dead_gives_up_its_jobs_and_begins_a_new_life(
    living: Living, peer: Broker
) -> None:
    first = await living.record()
    await peer.liveness.write(DEATH, None)
    living.liveness.disturbed()
    living.run()
    await wait_until(lambda: living.liveness.is_confirmed)
    assert living.told == ["sure", "dead", "sure"], "it learns of its death before it is sure again"
    record = await living.record()
    assert record.is_alive
    assert record.session != first.session


async def test_a_worker_that_was_not_declared_dead_keeps_its_jobs(living: Living) -> None:
    living.run(0.01)
    first = await living.broker.liveness.last(NAME)
    assert first is not None

    async def is_renewed() -> bool:
        found = await living.broker.liveness.last(NAME)
        return found is not None and found.sequence > first.sequence + 2

    await wait_until(is_renewed)
    assert living.told == ["sure"]


async def test_a_renewal_whose_answer_was_lost_is_no_death(broker: Broker) -> None:
    class Lossy(LivenessStore):
        lost = 0

        async def write(self, record: LivenessRecord, last: int | None) -> int:
            written = await super().write(record, last)
            if self.lost:
                self.lost -= 1
                raise BrokerTimeoutError("no answer")
            return written

    store = broker.__dict__["liveness"] = Lossy(broker)
    living = Living(broker)
    await living.liveness.begin(MEMORY_S)
    store.lost = 1
    living.liveness.disturbed()
    living.run()
    await wait_until(lambda: living.liveness.is_confirmed)
    assert living.told == ["sure", "sure"]
    await living.close()


async def test_two_workers_of_one_name_do_not_both_go_on(living: Living, peer: Broker) -> None:
    second = Living(peer)
    await second.liveness.begin(MEMORY_S)
    living.liveness.disturbed()
    with pytest.raises(ConfigError, match="another worker is called w-1"):
        await asyncio.wait_for(living.run(), 10)
    assert living.told == ["sure", "dead"]
    assert not living.liveness.is_confirmed
    assert second.liveness.is_confirmed


@pytest.mark.parametrize(("away_s", "told"), [(MEMORY_S, ["sure", "sure"]), (MEMORY_S + 1, ["sure", "dead", "sure"])])
async def test_a_record_that_the_stream_forgot_may_have_been_of_a_death(
    living: Living, peer: Broker, hands: Hands, away_s: float, told: list[str]
) -> None:
    """A death is kept for `memory_s`; who was away for longer cannot know."""
    subject = peer.names.liveness(NAME)
    found = await peer.liveness.last(NAME)
    assert found is not None
    await purge_subject(peer.connection, peer.names.events_stream, subject, found.sequence)
    hands.advance(away_s)
    living.liveness.disturbed()
    living.run()
    await wait_until(lambda: living.liveness.is_confirmed)
    assert living.told == told


async def test_a_ping_is_answered_with_a_sign_of_life_or_with_all_it_holds(living: Living, peer: Broker) -> None:
    living.liveness.took("$JS.ACK.a")
    living.liveness.took("$JS.ACK.b")
    living.liveness.gave("$JS.ACK.a")
    living.liveness.gave("$JS.ACK.never")
    assert codec.decode_pong(await ping(peer)).born_unix_ms > 0
    assert msgspec.json.decode(await ping(peer, LIST)) == ["$JS.ACK.b"]


async def test_what_it_takes_and_gives_is_announced_while_somebody_watches(
    living: Living, peer: Broker, wire: Wire, hands: Hands
) -> None:
    living.liveness.took("$JS.ACK.unwatched")
    await ping(peer)
    living.liveness.took("$JS.ACK.a")
    hands.advance(LEASES_ANNOUNCED_S - 0.1)
    living.liveness.gave("$JS.ACK.a")
    hands.advance(0.1)
    living.liveness.took("$JS.ACK.b")
    await wire.settle(living.broker.connection)
    assert [each.payload for each in wire.on(LEASES)] == [b"+$JS.ACK.a", b"-$JS.ACK.a"]
    assert msgspec.json.decode(await ping(peer, LIST)) == ["$JS.ACK.unwatched", "$JS.ACK.b"]


async def test_a_worker_that_leaves_says_so_and_is_asked_no_more(living: Living, peer: Broker) -> None:
    heard: list[bytes] = []
    peer.connection.subscribe(LEASES, lambda subject, reply, payload, header: heard.append(payload))
    await peer.connection.request("$JS.API.INFO")
    living.liveness.leave()
    await living.broker.connection.request("$JS.API.INFO")  # it takes along that nothing is heard any more
    assert await peer.liveness.ask(NAME) is None
    assert heard == [BYE]


@pytest.mark.parametrize("reply", ["mesh.out.t.j", "$KV.mesh_results.t.j", "$JS.API.STREAM.DELETE.MESH_EVENTS"])
async def test_it_never_answers_into_the_mesh(living: Living, peer: Broker, wire: Wire, reply: str) -> None:
    peer.connection.publish(PING, LIST, reply=reply)
    await ping(peer)
    await wire.settle(living.broker.connection)
    assert wire.on(reply) == []
