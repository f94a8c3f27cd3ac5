"""The request queue on a real server: stored once, found, taken out; and what a delivery says of its job."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores import queue as queue_module
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.pulls import Pulls
from mesh.broker.stores.queue import RequestQueue
from mesh.broker.stores.reads import PAGE, read_pages
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import PubAck
from mesh.errors import QuotaExceededError, TooLargeError, UnavailableError
from mesh.job_key import JobKey
from mesh.protocol import headers
from mesh.protocol.messages import Request
from mesh.protocol.subjects import Names, RequestAddress
from mesh.server import EmbeddedServer
from tests.running import present, wait_until

NAMES = Names()
SUBJECT = NAMES.request("simulator", "standard", "acme", "x")


@pytest.fixture
def queue(mesh_server: EmbeddedServer, connection: Connection) -> RequestQueue:
    return RequestQueue(Broker(connection, NAMES))


async def submit(queue: RequestQueue, job: str, tenant: str = "acme", body: bytes | None = None, **more: Any) -> PubAck:
    subject = NAMES.request("simulator", more.pop("tier", "standard"), tenant, "x")
    body = body if body is not None else b'{"id":"%s","prompt":"a"}' % job.encode()
    return await queue.submit(subject, body, f"{tenant}.{job}", more.pop("encoding", "json"), "", 5.0)


async def messages(connection: Connection) -> int:
    return int((await topology.stream_state(connection, NAMES.requests_stream))["messages"])


async def test_a_request_is_stored_and_found(queue: RequestQueue) -> None:
    ack = await submit(queue, "j1")
    assert (ack.stream, ack.duplicate) == ("MESH_REQUESTS", False)
    found = await queue.find(JobKey("acme", "j1"))
    assert found is not None
    assert (found.job, found.sequence, found.request) == ("j1", ack.seq, Request(id="j1", prompt="a"))
    assert found.address == RequestAddress("simulator", "standard", "acme", "0"), "the affinity became a lane"
    assert await queue.get(ack.seq) == found


async def test_a_request_submitted_again_is_stored_once(queue: RequestQueue, connection: Connection) -> None:
    first = await submit(queue, "j1")
    again = await submit(queue, "j1")
    assert (again.seq, again.duplicate) == (first.seq, True)
    assert await messages(connection) == 1
    assert not (await submit(queue, "j1", tenant="other")).duplicate, "another tenant's job of that name is another job"


async def test_of_fifty_submits_at_once_one_is_stored(queue: RequestQueue, connection: Connection) -> None:
    acks = await asyncio.gather(*(submit(queue, "j1") for _ in range(50)))
    assert [ack.duplicate for ack in acks].count(False) == 1
    assert len({ack.seq for ack in acks}) == 1
    assert await messages(connection) == 1


async def test_only_the_tenants_own_job_is_found(queue: RequestQueue) -> None:
    await submit(queue, "j1", tenant="acme")
    assert await queue.find(JobKey("other", "j1")) is None
    assert await queue.find(JobKey("acme", "j2")) is None


async def test_a_job_named_by_its_sequence_is_found_by_its_tenant_alone(queue: RequestQueue) -> None:
    ack = await submit(queue, "", body=b'{"prompt":"a"}')
    assert present(await queue.find(JobKey("acme", f"s{ack.seq}"))).job == f"s{ack.seq}"
    assert await queue.find(JobKey("other", f"s{ack.seq}")) is None
    assert await queue.find(JobKey("acme", f"s{ack.seq + 1}")) is None


async def test_an_id_that_looks_like_a_sequence_is_found_too(queue: RequestQueue) -> None:
    await submit(queue, "story")
    assert present(await queue.find(JobKey("acme", "story"))).job == "story"


async def test_a_job_behind_many_others_is_found(queue: RequestQueue, connection: Connection) -> None:
    body = msgspec.json.encode({"prompt": "a"})
    for number in range(2 * PAGE.messages + 5):
        tenant = "acme" if number % 2 else "other"
        connection.publish(NAMES.request("simulator", "batch", tenant, "x"), body)
    for number in range(PAGE.messages + 1):
        connection.publish(SUBJECT, body, headers.block(("A", number)))
    ack = await submit(queue, "last")
    assert present(await queue.find(JobKey("acme", "last"))).sequence == ack.seq
    assert await queue.find(JobKey("acme", "nobody")) is None


async def test_the_queue_is_read_in_pages_up_to_a_place(queue: RequestQueue) -> None:
    sequences = [(await submit(queue, f"j{number}")).seq for number in range(7)]
    await submit(queue, "else", tenant="other")
    acme = RequestAddress("*", "*", "acme", "*")

    async def pages(*arguments: Any, **more: Any) -> list[list[str | None]]:
        return [[stored.job for stored in page] async for page in queue.pages(*arguments, **more)]

    assert await pages(0, acme, most=3) == [["j0", "j1", "j2"], ["j3", "j4", "j5"], ["j6"]]
    assert await pages(sequences[1], acme, last=sequences[4], most=2) == [["j2", "j3"], ["j4"]]
    assert await pages(sequences[-1]) == [["else"]]
    assert await pages(sequences[-1] + 1) == []
    assert [await queue.count_after(after, acme) for after in (0, sequences[2], sequences[-1])] == [7, 4, 0]


async def test_what_a_lagging_replica_does_not_show_yet_is_asked_of_its_leader(
    queue: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await submit(queue, "j1"), await submit(queue, "j2")
    read = read_pages

    async def lagging(*arguments: Any, after: int, **more: Any) -> AsyncIterator[list[Any]]:
        """Shows the first request, and the second once the leader was asked."""
        async for page in read(*arguments, after=after, **more | {"last": first.seq if not after else None}):
            yield page

    monkeypatch.setattr(queue_module, "read_pages", lagging)
    assert [s.job async for page in queue.pages() for s in page] == ["j1"]
    assert await queue.has_after(first.seq) is True
    assert await queue.has_after(second.seq) is False
    assert present(await queue.find(JobKey("acme", "j2"))).sequence == second.seq
    assert await queue.find(JobKey("acme", "j3")) is None


async def test_an_empty_queue_holds_nothing(queue: RequestQueue) -> None:
    assert await queue.find(JobKey("acme", "j1")) is None
    assert await queue.get(1) is None


async def test_a_job_taken_out_is_gone_and_can_be_taken_once(queue: RequestQueue, connection: Connection) -> None:
    ack = await submit(queue, "j1")
    await submit(queue, "j2")
    assert await queue.remove(ack.seq) is True
    assert await queue.remove(ack.seq) is False
    assert await queue.find(JobKey("acme", "j1")) is None
    assert await queue.find(JobKey("acme", "j2")) is not None
    assert await messages(connection) == 1


async def test_a_packed_request_says_so(queue: RequestQueue) -> None:
    await submit(queue, "j1", body=msgspec.msgpack.encode({"id": "j1", "prompt": "a"}), encoding="msgpack")
    found = await queue.find(JobKey("acme", "j1"))
    assert found is not None
    assert (found.encoding, found.error) == ("msgpack", None)


async def test_a_full_queue_refuses_at_once(server: EmbeddedServer, connection: Connection) -> None:
    settings = MeshSettings(lanes=1, queue_limit=2)
    await topology.apply(connection, await topology.plan(Broker(connection, NAMES), settings, ["simulator"]))
    queue = RequestQueue(Broker(connection, NAMES))
    for number in range(2):
        await submit(queue, f"j{number}")
    with pytest.raises(QuotaExceededError, match="try again later"):
        await submit(queue, "j2")
    await submit(queue, "j3", tenant="other")
    await submit(queue, "j4", tier="batch")
    ack = await queue.find(JobKey("acme", "j0"))
    assert ack is not None
    await queue.remove(ack.sequence)
    await submit(queue, "j2")


async def test_without_a_mesh_the_refusal_says_how_to_make_one(connection: Connection) -> None:
    with pytest.raises(UnavailableError, match="mesh init"):
        await submit(RequestQueue(Broker(connection, NAMES)), "j1")


async def test_a_request_too_large_for_a_message_is_refused(queue: RequestQueue, connection: Connection) -> None:
    with pytest.raises(TooLargeError):
        await submit(queue, "j1", body=b"x" * connection.max_payload)


# What a delivery says of its job, on the way from a publish to a worker.


@pytest.mark.parametrize(
    ("what", "body", "pairs", "job", "code"),
    [
        ("its own id", b'{"id":"j1","prompt":"a"}', (), "j1", None),
        ("no id", b'{"prompt":"a"}', (), "s1", None),
        ("another tenant's name in a header", b"broken", (("Nats-Msg-Id", "evil.j1"),), "s1", "invalid_request"),
        ("its name in a header", b"broken", (("Nats-Msg-Id", "acme.j1"),), "j1", "invalid_request"),
        ("nothing", b"", (), "s1", "invalid_request"),
        ("a medium nobody knows", b'{"prompt":"a"}', (("Content-Type", "text/plain"),), "s1", "unsupported"),
        ("a field not served", b'{"id":"j1","prompt":"a","n":2}', (), "j1", "unsupported"),
        ("a subject as id", b'{"id":"mesh.out.>","prompt":"a"}', (), "s1", "invalid_request"),
        ("a status in its headers", b'{"id":"j1","prompt":"a"}', (("Status", "503"),), "j1", None),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
async def test_a_delivery_has_a_name_to_be_answered_under(
    mesh_server: EmbeddedServer,
    connection: Connection,
    what: str,
    body: bytes,
    pairs: tuple[Any, ...],
    job: str,
    code: str | None,
) -> None:
    await connection.request(SUBJECT, body, headers.block(*pairs))
    deliveries: list[Delivery] = []
    ends: list[tuple[str, str]] = []
    puller = Pulls(Broker(connection, NAMES), deliveries.append, lambda *end: ends.append(end))
    puller.pull("simulator-standard-0", 1, 5.0, 0)  # waits: the consumer may hear of the request a moment after the ack
    await wait_until(lambda: deliveries)
    (delivery,) = deliveries
    assert delivery.job == job
    assert delivery.address.tenant == "acme", "the tenant is the subject's, never one in a body or a header"
    assert (delivery.stored.error.code if delivery.stored.error else None) == code
    assert delivery.stored.sequence == 1
    assert delivery.stored_unix_ms > 1_600_000_000_000
    puller.close()
