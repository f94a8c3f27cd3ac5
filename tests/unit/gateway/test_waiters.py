"""Whether a requester that goes away may end the job: only if nobody else waits for it, and it began it."""

import asyncio

import pytest

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Connection
from mesh.errors import UnavailableError
from mesh.gateway import waiters
from mesh.gateway.waiters import Waiters
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Result, Started
from tests.running import MODEL
from tests.wire import Wire

KEY = JobKey("t", "j")
RESULT = Result(id="j", tenant="t", model="m", status="finished", text="ab")


async def store(broker: Broker, job: str = "j", tenant: str = "t") -> int:
    subject = broker.names.request(MODEL, "standard", tenant, "x")
    body = b'{"id":"%s","prompt":"a"}' % job.encode()
    ack = await broker.queue.submit(subject, body, "", "json", "", 5.0)
    return ack.seq


async def settled(connection: Connection) -> None:
    """The server has taken what was sent before."""
    await connection.request("$JS.API.INFO")


async def test_a_job_that_nobody_else_waits_for_is_its_requesters(broker: Broker) -> None:
    sequence = await store(broker)
    assert not await Waiters(broker, "t").shares("j", sequence)


async def test_a_job_that_another_waits_for_is_shared(broker: Broker, peer: Broker) -> None:
    sequence = await store(broker)
    other = Waiters(peer, "t")
    other.join("j")
    await settled(peer.connection)
    assert await Waiters(broker, "t").shares("j", sequence)


async def test_who_has_stopped_waiting_does_not_count(broker: Broker, peer: Broker) -> None:
    sequence = await store(broker)
    other = Waiters(peer, "t")
    other.join("j")
    other.close()
    other.close()
    await settled(peer.connection)
    assert not await Waiters(broker, "t").shares("j", sequence)


async def test_it_does_not_take_itself_for_another(broker: Broker) -> None:
    sequence = await store(broker)
    own = Waiters(broker, "t")
    own.join("j")
    await settled(broker.connection)
    assert not await own.shares("j", sequence)


@pytest.mark.parametrize(("tenant", "job"), [("t", "k"), ("other", "j")])
async def test_who_waits_for_another_job_says_nothing(broker: Broker, peer: Broker, tenant: str, job: str) -> None:
    sequence = await store(broker)
    other = Waiters(peer, tenant)
    other.join(job)
    await settled(peer.connection)
    assert not await Waiters(broker, "t").shares("j", sequence)
    with pytest.raises(UnavailableError):
        await broker.connection.request(broker.names.system("joined", "t", "j"), timeout_s=1.0)


async def test_a_front_door_that_is_suspended_may_have_a_requester(
    broker: Broker, peer: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is connected, and does not answer."""
    monkeypatch.setattr(waiters, "ANSWER_S", 0.2)
    sequence = await store(broker)
    peer.connection.subscribe(broker.names.system("joined", "t", "j"), lambda *message: None)
    await settled(peer.connection)
    assert await Waiters(broker, "t").shares("j", sequence)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_job_that_another_request_began_is_shared(broker: Broker, is_silent: bool) -> None:
    journal = broker.journal
    subject = journal.attempts_subject(KEY) if is_silent else journal.subject(KEY)
    started = Started(id="j", attempt=1, index=0, worker="w", unix_ms=1, sequence=41)
    await journal.append(subject, codec.encode(started), 0)
    assert await Waiters(broker, "t").shares("j", 42)
    assert not await Waiters(broker, "t").shares("j", 41)


async def test_the_request_that_began_counts_not_the_one_that_waits(broker: Broker) -> None:
    """Its message id was forgotten, so it is stored a second time while the job runs."""
    sequence = await store(broker)
    started = Started(id="j", attempt=1, index=0, worker="w", unix_ms=1, sequence=sequence + 1)
    await broker.journal.append(broker.journal.subject(KEY), codec.encode(started), 0)
    assert not await Waiters(broker, "t").shares("j", sequence + 1)
    assert await Waiters(broker, "t").shares("j", sequence)


async def test_a_job_that_waits_under_another_request_is_shared(broker: Broker) -> None:
    first, second = await store(broker), await store(broker)
    assert await Waiters(broker, "t").shares("j", second)
    assert not await Waiters(broker, "t").shares("j", first)


async def test_a_job_of_which_nothing_is_known_is_not_shared(broker: Broker) -> None:
    assert not await Waiters(broker, "t").shares("j", 1)
    await broker.journal.append(broker.journal.subject(KEY), codec.encode(RESULT), 0)
    assert not await Waiters(broker, "t").shares("j", 1), "an end tells no beginning"


@pytest.mark.parametrize("reply", ["mesh.out.t.j", "$JS.API.STREAM.DELETE.MESH_EVENTS", "$KV.mesh_results.t.j"])
async def test_it_never_answers_into_the_mesh(broker: Broker, peer: Broker, wire: Wire, reply: str) -> None:
    own = Waiters(broker, "t")
    own.join("j")
    await settled(broker.connection)
    peer.connection.publish(peer.names.system("joined", "t", "j"), b"", reply=reply)
    await peer.connection.request(peer.names.system("joined", "t", "j"))
    await wire.settle(broker.connection)
    await asyncio.sleep(0)
    assert wire.subjects("mesh.out", "$JS.API.STREAM.DELETE", "$KV") == []
