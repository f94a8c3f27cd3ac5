"""Results, objects and presence on a real server: written once, kept as long as was said."""

import asyncio
from typing import Any

import msgspec
import pytest

from mesh.broker.broker import Broker
from mesh.broker.stores import workers
from mesh.broker.stores.deadletters import DeadLetters
from mesh.broker.stores.delivery import read_delivery
from mesh.broker.stores.journal import Journal
from mesh.broker.stores.reads import PageSize, read_pages
from mesh.broker.stores.results import ResultStore
from mesh.broker.stores.workers import PresenceStore
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import read_api
from mesh.errors import BrokerError, MeshError, TopologyError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import ErrorInfo, Presence, Result
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import present, wait_until

NAMES = Names()


@pytest.fixture
def store(mesh_server: EmbeddedServer, connection: Connection) -> ResultStore:
    return ResultStore(Broker(connection, NAMES))


def result(text: str = "done") -> Result:
    return Result(id="j", tenant="t", model="m", status="finished", text=text)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_result_is_kept_as_it_was_written(store: ResultStore, encoding: Encoding) -> None:
    assert await store.get(JobKey("t", "j")) is None
    body = codec.encode(result("\x00\U0001f99c"), encoding)
    assert await store.create(JobKey("t", "j"), body, 60_000) is True
    found = present(await store.get(JobKey("t", "j")))
    assert (found.result, found.body) == (result("\x00\U0001f99c"), body)


async def test_of_fifty_who_end_a_job_at_once_one_does(store: ResultStore) -> None:
    bodies = [codec.encode(result(f"by {n}")) for n in range(50)]
    won = await asyncio.gather(*(store.create(JobKey("t", "j"), body, 60_000) for body in bodies))
    assert won.count(True) == 1
    assert present(await store.get(JobKey("t", "j"))).result.text == f"by {won.index(True)}"


async def test_a_result_is_never_overwritten(store: ResultStore) -> None:
    assert await store.create(JobKey("t", "j"), codec.encode(result("first")), 60_000)
    assert not await store.create(JobKey("t", "j"), codec.encode(result("second")), 60_000)
    assert present(await store.get(JobKey("t", "j"))).result.text == "first"
    assert await store.create(JobKey("t", "k"), codec.encode(result()), 60_000)
    assert await store.create(JobKey("u", "j"), codec.encode(result()), 60_000)


async def test_a_result_is_kept_no_longer_than_was_asked(store: ResultStore) -> None:
    assert await store.create(JobKey("t", "j"), codec.encode(result()), 1000)
    assert await store.create(JobKey("t", "k"), codec.encode(result()), 60_000)

    async def gone() -> bool:
        return await store.get(JobKey("t", "j")) is None

    await wait_until(gone, 8.0)
    assert await store.get(JobKey("t", "k")) is not None


async def test_nats_own_key_value_client_reads_a_result(store: ResultStore, connection: Connection) -> None:
    body = codec.encode(result())
    await store.create(JobKey("t", "j"), body, 60_000)
    bucket = await connection.link.jetstream().key_value("mesh_results")
    assert (await bucket.get("t.j")).value == body


async def test_a_check_tells_of_a_result_and_of_nothing_else(
    store: ResultStore, mesh_server: EmbeddedServer, connection: Connection
) -> None:
    found: list[Any] = []
    store.check(JobKey("t", "j"), found.append)
    await connection.request("$JS.API.INFO")
    await store.create(JobKey("t", "j"), codec.encode(result()), 60_000)
    store.check(JobKey("t", "j"), found.append)
    await wait_until(lambda: found)
    assert [each.result for each in found] == [result()]
    await mesh_server.stop(kill=True)
    await wait_until(lambda: not connection.is_connected)
    store.check(JobKey("t", "j"), found.append)
    assert len(found) == 1


async def test_a_check_that_finds_no_result_is_as_if_there_were_none(
    store: ResultStore, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that cannot be read is nothing that a callback may break with."""
    found: list[Any] = []
    await connection.request("$KV.mesh_results.t.j", b'{"type":"result","id":5}')
    store.check(JobKey("t", "j"), found.append)
    await connection.request("$JS.API.INFO")
    await connection.request("$JS.API.INFO")
    assert not found
    assert not [each for each in caplog.records if each.exc_info]


async def test_without_a_bucket_no_result_is_taken(connection: Connection) -> None:
    store = ResultStore(Broker(connection, NAMES))
    with pytest.raises(BrokerError):
        await store.create(JobKey("t", "j"), codec.encode(result()), 60_000)
    with pytest.raises(BrokerError):
        await store.get(JobKey("t", "j"))


@pytest.mark.parametrize("size", [0, 1, 128 * 1024, 3_000_000])
async def test_a_large_value_is_kept_beside(store: ResultStore, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await store.put_object("t.j", body)
    assert await store.get_object("t.j") == body
    await store.put_object("t.j", b"again")
    assert await store.get_object("t.j") == b"again"


async def test_an_object_that_is_not_there_is_one_of_our_errors(store: ResultStore) -> None:
    with pytest.raises(MeshError):
        await store.get_object("nobody")
    await store.put_object("t.j", b"x")
    with pytest.raises(MeshError):
        await store.get_object("nobody")


# Presence.


def presence(worker: str, **more: Any) -> Presence:
    fields: dict[str, Any] = {
        "worker": worker,
        "model": "m",
        "state": "ready",
        "engine": "e",
        "engine_version": "1",
        "version": "0",
        "host": "h",
        "pid": 1,
        "capacity": 1,
        "running": 0,
    }
    return Presence(**fields | more)


@pytest.fixture
def board(mesh_server: EmbeddedServer, connection: Connection) -> PresenceStore:
    return PresenceStore(Broker(connection, NAMES))


async def test_workers_are_seen_while_they_beat_and_not_after_they_left(board: PresenceStore) -> None:
    assert await board.all() == []
    board.put(presence("w-2"))
    board.put(presence("w-1"))
    board.put(presence("w-1", running=1))

    async def seen() -> bool:
        return [(each.worker, each.running) for each in await board.all()] == [("w-1", 1), ("w-2", 0)]

    await wait_until(seen)
    board.remove("w-1")

    async def left() -> bool:
        return [each.worker for each in await board.all()] == ["w-2"]

    await wait_until(left)


async def test_a_hundred_workers_are_seen(board: PresenceStore) -> None:
    for number in range(100):
        board.put(presence(f"w-{number:03}"))

    async def seen() -> bool:
        return [each.worker for each in await board.all()] == [f"w-{number:03}" for number in range(100)]

    await wait_until(seen)


MANY = 2500  # more than JetStream answers at once for a pattern of subjects


async def publish_presences(connection: Connection, count: int) -> None:
    """As many workers' presences, stored, and kept for longer than a busy machine takes."""
    _, payload = await connection.request("$JS.API.STREAM.INFO.KV_mesh_workers")
    config = read_api(payload, "workers")["config"] | {"max_age": 600 * 1_000_000_000}
    _, payload = await connection.request("$JS.API.STREAM.UPDATE.KV_mesh_workers", msgspec.json.encode(config))
    read_api(payload, "workers")
    for number in range(count):
        worker = f"w-{number:04}"
        connection.publish(NAMES.worker_key(worker), codec.encode(presence(worker)))
        if number % 500 == 499:
            await connection.request("$JS.API.INFO")  # what was published is sent

    async def stored() -> bool:
        _, payload = await connection.request("$JS.API.STREAM.INFO.KV_mesh_workers")
        return bool(read_api(payload, "workers")["state"]["last_seq"] >= count)

    await wait_until(stored)


@pytest.mark.parametrize("page", [workers.PAGE.messages, 1000, MANY])
async def test_thousands_of_workers_are_seen(
    board: PresenceStore, connection: Connection, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(workers, "PAGE", PageSize(messages=page))
    await publish_presences(connection, MANY)
    assert [each.worker for each in await board.all()] == [f"w-{number:04}" for number in range(MANY)]
    assert all(beat.unix_ms for beat in await board.beats())


async def test_a_worker_that_beats_or_leaves_while_pages_are_read_is_seen_as_it_is(
    board: PresenceStore, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message moves to the end of the stream: it is in two pages, or in a later one than it was."""
    monkeypatch.setattr(workers, "PAGE", PageSize(messages=10))
    await publish_presences(connection, 30)
    pages = 0

    async def between(*arguments: Any, **more: Any) -> Any:
        nonlocal pages
        async for page in read_pages(*arguments, **more):
            yield page
            pages += 1
            if pages == 1:
                for name in ("w-0000", "w-0025"):  # one was read, the other was not
                    await connection.request(NAMES.worker_key(name), codec.encode(presence(name, running=1)))
                await connection.request(NAMES.worker_key("w-0001"), b"", headers.block(("KV-Operation", "DEL")))

    monkeypatch.setattr(workers, "read_pages", between)
    found = {each.worker: each.running for each in await board.all()}
    assert found == {f"w-{number:04}": int(number in (0, 25)) for number in range(30) if number != 1}
    assert pages == 4  # of ten each, and of what moved


async def test_pages_that_are_cut_by_their_bytes_are_read_to_the_end(
    board: PresenceStore, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PAGE", PageSize(bytes=1000))
    await publish_presences(connection, 50)
    assert len(await board.all()) == 50


async def test_without_a_mesh_nobody_can_be_seen(connection: Connection) -> None:
    with pytest.raises(TopologyError, match="mesh init"):
        await PresenceStore(Broker(connection, NAMES)).all()


# Dead letters.


async def test_a_dead_letter_is_the_request_with_its_reason_and_kept_once(
    mesh_server: EmbeddedServer, connection: Connection
) -> None:
    body = b'{"id":"j","prompt":"a"}'
    subject, reply = (
        b"mesh.req.simulator.batch.t.0",
        b"$JS.ACK.MESH_REQUESTS.simulator-batch-0.3.17.4.1790000000123456789.0",
    )
    delivery = read_delivery(NAMES, subject, reply, body, b"")
    letters = DeadLetters(Broker(connection, NAMES))
    reason = ErrorInfo(code="attempts_exhausted", message="given up\r\nNats-Rollup: all")
    await letters.bury(present(delivery), reason, 3)
    await letters.bury(present(delivery), reason, 3)
    _, payload = await connection.request("$JS.API.STREAM.INFO.MESH_DEAD")
    assert read_api(payload, "dead")["state"]["messages"] == 1
    message = await connection.link.jetstream().get_msg("MESH_DEAD", 1)
    assert (message.subject, message.data) == ("mesh.dead.simulator.batch.t.0", body)
    assert message.headers["Mesh-Error"] == "given up Nats-Rollup: all"
    assert message.headers["Mesh-Job"] == "j"
    assert message.headers["Mesh-Attempts"] == "3"
    assert "Nats-Rollup" not in message.headers


async def test_a_journal_and_a_result_of_one_job_do_not_meet(store: ResultStore, connection: Connection) -> None:
    """Their subjects are of different streams: the fence of one says nothing about the other."""
    await store.create(JobKey("t", "j"), codec.encode(result()), 60_000)
    assert await Journal(Broker(connection, NAMES)).last("mesh.out.t.j") is None


async def test_what_was_written_is_read_from_the_leader(connection: Connection, mesh_server: EmbeddedServer) -> None:
    store = ResultStore(Broker(connection, Names()))
    assert await store.get_written(JobKey("t", "j")) is None
    body = codec.encode(Result(id="j", tenant="t", model="m", status="finished", text="x"))
    assert await store.create(JobKey("t", "j"), body, 60_000)
    assert present(await store.get_written(JobKey("t", "j"))).body == body


async def test_a_result_can_be_created_anew_where_an_operator_deleted_one(
    store: ResultStore, connection: Connection
) -> None:
    assert await store.create(JobKey("t", "j"), codec.encode(result("a")), 60_000)
    await connection.request(NAMES.result_key(JobKey("t", "j")), b"", headers.block(("KV-Operation", "DEL")))
    assert await store.get(JobKey("t", "j")) is None
    assert await store.get_written(JobKey("t", "j")) is None
    assert await store.create(JobKey("t", "j"), codec.encode(result("b")), 60_000)
    assert not await store.create(JobKey("t", "j"), codec.encode(result("c")), 60_000)
    assert present(await store.get_written(JobKey("t", "j"))).result == result("b")
