"""A request that no consumer will ever take is answered at once, and no other is touched."""

from collections.abc import AsyncIterator

import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.topology import MeshSettings
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Result, Started
from mesh.reconcile import unroutable
from mesh.reconcile.unroutable import Unroutable
from tests.running import MODEL, wait_until
from tests.wire import Wire

REMOVED = "$JS.API.STREAM.MSG.DELETE.MESH_REQUESTS"


async def submit(broker: Broker, subject: str, job: str = "j", body: bytes = b"") -> int:
    body = body or b'{"id":"%s","prompt":"a"}' % job.encode()
    ack = await broker.queue.submit(subject, body, "", "json", "", 5.0)
    return ack.seq


async def is_empty(broker: Broker) -> bool:
    return int((await topology.stream_state(broker.connection, broker.names.requests_stream))["messages"]) == 0


async def wait_gone(broker: Broker) -> None:
    async def gone() -> bool:
        return await is_empty(broker)

    await wait_until(gone)


async def result_of(broker: Broker, job: str = "j", tenant: str = "t") -> Result | None:
    found = await broker.results.get_written(JobKey(tenant, job))
    return found.result if found is not None else None


@pytest.fixture
async def watching(broker: Broker) -> AsyncIterator[Unroutable]:
    made = Unroutable(broker, "w-1")
    await broker.connection.request("$JS.API.INFO")
    yield made
    await made.close()


async def looked_at_everything(watching: Unroutable, peer: Broker) -> None:
    """A request for an unknown model, stored now, is ended: whatever was stored before it was looked at."""
    await submit(peer, "mesh.req.nobody.standard.t.x", "mark")

    async def is_ended() -> bool:
        return await result_of(peer, "mark") is not None

    await wait_until(is_ended)


async def test_a_request_for_a_model_that_nobody_serves_fails_by_name(watching: Unroutable, peer: Broker) -> None:
    await submit(peer, "mesh.req.misspelt.standard.t.x")
    await wait_gone(peer)
    result = await result_of(peer)
    assert result is not None
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "model_not_found"
    assert "misspelt" in result.error.message


async def test_its_result_is_there_before_it_leaves_the_queue(watching: Unroutable, peer: Broker, wire: Wire) -> None:
    await submit(peer, "mesh.req.misspelt.standard.t.x")
    await wait_gone(peer)
    (store,), (removal,) = wire.on("$KV.mesh_results.t.j"), wire.on(REMOVED)
    assert wire.answer_to(store) < wire.place_of(removal)


async def test_a_tier_that_does_not_exist_is_an_invalid_request(watching: Unroutable, peer: Broker) -> None:
    """Also where the model is known to be served."""
    await submit(peer, peer.names.request(MODEL, "standard", "t", "x"), "served")
    await looked_at_everything(watching, peer)
    await submit(peer, f"mesh.req.{MODEL}.urgent.t.x")

    async def is_ended() -> bool:
        return await result_of(peer) is not None

    await wait_until(is_ended)
    result = await result_of(peer)
    assert result is not None
    assert result.error is not None
    assert (result.error.code, "'urgent'" in result.error.message) == ("invalid_request", True)


@pytest.mark.parametrize("subject", ["mesh.req.short", "mesh.req.a.b.c.d.e", f"mesh.req.{MODEL}.standard.ten!ant.x"])
async def test_a_subject_without_a_tenant_can_have_no_result_and_is_removed(
    watching: Unroutable, peer: Broker, subject: str, wire: Wire
) -> None:
    await submit(peer, subject)
    await wait_gone(peer)
    assert wire.on("$KV.mesh_results") == []


async def queued(peer: Broker) -> list[StoredRequest]:
    return [stored async for page in peer.queue.pages() for stored in page]


async def test_a_request_that_a_worker_may_take_is_left_alone(watching: Unroutable, peer: Broker) -> None:
    sequences = [await submit(peer, peer.names.request(MODEL, "standard", "t", "x"), f"j{n}") for n in range(3)]
    await looked_at_everything(watching, peer)
    assert [each.sequence for each in await queued(peer) if each.job != "mark"] == sequences
    assert await result_of(peer, "j0") is None


async def test_what_was_stored_while_nobody_watched_is_found(peer: Broker, broker: Broker) -> None:
    for number in range(3):
        await submit(peer, "mesh.req.misspelt.standard.t.x", f"j{number}")
    await submit(peer, "mesh.req.a.b.c.d.e")
    kept = await submit(peer, peer.names.request(MODEL, "batch", "t", "x"), "kept")
    watching = Unroutable(broker, "w-1")

    async def only_one_is_left() -> bool:
        return [each.sequence for each in await queued(peer)] == [kept]

    await wait_until(only_one_is_left)
    assert [await result_of(peer, f"j{number}") is not None for number in range(3)] == [True] * 3
    await watching.close()


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_second_request_of_a_job_that_was_served_changes_nothing_of_it(
    watching: Unroutable, peer: Broker, is_silent: bool, wire: Wire
) -> None:
    """Its name is that of a job which runs or ran elsewhere; a Result would end that one."""
    key, journal = JobKey("t", "j"), peer.journal
    subject = journal.attempts_subject(key) if is_silent else journal.subject(key)
    started = Started(id="j", attempt=1, index=0, worker="w-2", unix_ms=1, sequence=99)
    await journal.append(subject, codec.encode(started), 0)
    await submit(peer, "mesh.req.misspelt.standard.t.x")
    await wait_gone(peer)
    assert wire.on("$KV.mesh_results") == []
    assert [each.event for each in await journal.read(subject)] == [started]


async def test_what_is_no_request_is_told_so_rather_than_that_its_model_is_unknown(
    watching: Unroutable, peer: Broker
) -> None:
    await submit(peer, "mesh.req.misspelt.standard.t.x", body=b'{"id":"j","prompt":7}')
    await wait_gone(peer)
    result = await result_of(peer)
    assert result is not None
    assert result.error is not None
    assert result.error.code == "invalid_request"


async def test_a_model_that_was_deployed_since_is_served(watching: Unroutable, peer: Broker) -> None:
    """That it was unknown is never remembered."""
    await submit(peer, "mesh.req.newer.standard.t.x", "early")
    await wait_gone(peer)
    await topology.apply(peer.connection, await topology.plan(peer, MeshSettings(lanes=1), ["newer"]))
    await submit(peer, "mesh.req.newer.standard.t.x", "late")
    await looked_at_everything(watching, peer)
    assert [each.job for each in await queued(peer)] == ["late"]


async def test_each_request_is_looked_at_by_one_process(
    wire: Wire, watching: Unroutable, peer: Broker, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unroutable, "SWEEP_S", 600.0)
    other = Unroutable(peer, "w-2")
    await wait_until(lambda: len(wire.on("$JS.API.STREAM.INFO.MESH_REQUESTS")) == 2)
    for each in (peer, broker):  # and by now both know that nothing is stored yet
        await each.connection.request("$JS.API.INFO")
    for number in range(10):
        await submit(peer, "mesh.req.misspelt.standard.t.x", f"j{number}")
    await wait_gone(peer)
    await wire.settle(peer.connection)
    assert len(wire.on(REMOVED)) == 10
    await other.close()
