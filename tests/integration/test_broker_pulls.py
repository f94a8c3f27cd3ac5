"""Pulls and acknowledgements on a real server: what each frame means, and what a tenant cannot make it mean."""

import time
from collections.abc import AsyncIterator, Sized
from functools import partial
from typing import Any

import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.pulls import Leases, Pulls
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection
from mesh.errors import DisconnectedError
from mesh.protocol import headers
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import wait_until

NAMES = Names()
CONSUMER = "simulator-standard-0"


class Worker:
    """A puller, and what it was given."""

    def __init__(self, connection: Connection) -> None:
        self.deliveries: list[Delivery] = []
        self.ends: list[tuple[str, str]] = []
        self.puller = Pulls(Broker(connection, NAMES), self.deliveries.append, self.ended)
        self.leases = Leases(connection)

    def ended(self, consumer: str, how: str) -> None:
        self.ends.append((consumer, how))

    def pull(self, batch: int = 1, expires_s: float | None = None, priority: int = 0, consumer: str = CONSUMER) -> None:
        self.puller.pull(consumer, batch, expires_s, priority)

    @property
    def jobs(self) -> list[str]:
        return [delivery.job for delivery in self.deliveries]

    async def wait_end(self) -> str:
        await wait_until(lambda: self.ends)
        return self.ends.pop(0)[1]


@pytest.fixture
async def worker(mesh_server: EmbeddedServer, connection: Connection) -> AsyncIterator[Worker]:
    made = Worker(connection)
    yield made
    made.puller.close()


async def submit(
    connection: Connection, job: str, *pairs: tuple[str, str], tenant: str = "default", tier: str = "standard"
) -> None:
    subject = NAMES.request("simulator", tier, tenant, "x")
    await store(connection, subject, b'{"id":"%s","prompt":"a"}' % job.encode(), headers.block(*pairs))


async def store(connection: Connection, subject: str, body: bytes, header: bytes) -> None:
    """Publish, and wait until the consumers know: JetStream acknowledges before they do."""

    async def seen() -> int:
        states = (await topology.consumer_states(connection, NAMES.requests_stream)).values()
        return sum(each["num_pending"] + each["delivered"]["consumer_seq"] for each in states)

    before = await seen()
    await connection.request(subject, body, header)

    async def is_known() -> bool:
        return await seen() > before

    await wait_until(is_known)


async def state(connection: Connection, consumer: str = CONSUMER) -> dict[str, Any]:
    return (await topology.consumer_states(connection, NAMES.requests_stream))[consumer]


async def test_a_pull_brings_up_to_as_many_jobs_as_were_asked_for(worker: Worker, connection: Connection) -> None:
    for number in range(5):
        await submit(connection, f"j{number}")
    worker.pull(3)
    assert await worker.wait_end() == "filled"
    assert worker.jobs == ["j0", "j1", "j2"]
    assert [delivery.pending for delivery in worker.deliveries] == [4, 3, 2]
    assert {delivery.delivered for delivery in worker.deliveries} == {1}
    worker.pull(3)
    assert await worker.wait_end() == "empty"
    assert worker.jobs == ["j0", "j1", "j2", "j3", "j4"]
    assert worker.puller.open_pulls == 0


async def test_now_or_never_is_answered_at_once_where_nothing_waits(worker: Worker) -> None:
    began = time.monotonic()
    worker.pull()
    assert worker.puller.open_pulls == 1
    assert await worker.wait_end() == "empty"
    assert time.monotonic() - began < 5
    assert worker.jobs == []


async def test_a_waiting_pull_gets_a_job_the_moment_it_arrives(worker: Worker, connection: Connection) -> None:
    worker.pull(expires_s=20)
    await connection.request("$JS.API.INFO")
    began = time.monotonic()
    await submit(connection, "j1")
    await wait_until(lambda: worker.jobs == ["j1"])
    assert time.monotonic() - began < 5
    assert await worker.wait_end() == "filled"


async def test_a_waiting_pull_ends_when_its_time_is_over(worker: Worker) -> None:
    worker.pull(expires_s=0.3)
    began = time.monotonic()
    assert await worker.wait_end() == "empty"
    assert 0.2 < time.monotonic() - began < 2


async def test_only_one_pull_is_open_on_a_consumer(worker: Worker) -> None:
    worker.pull(expires_s=5)
    with pytest.raises(RuntimeError, match="open already"):
        worker.pull()
    worker.pull(consumer="simulator-batch-0", expires_s=5)
    assert worker.puller.open_pulls == 2


async def test_who_owns_the_lane_is_served_before_who_does_not(worker: Worker, connection: Connection) -> None:
    other = Worker(connection)
    other.pull(expires_s=20, priority=1)
    await connection.request("$JS.API.INFO")
    worker.pull(expires_s=20, priority=0)
    await connection.request("$JS.API.INFO")
    await submit(connection, "j1")
    await wait_until(lambda: worker.jobs == ["j1"])
    await submit(connection, "j2")
    await wait_until(lambda: other.jobs == ["j2"])
    other.puller.close()


async def test_a_tenants_headers_are_never_a_status(worker: Worker, connection: Connection) -> None:
    """nats-py takes a message with a Status header for a frame of the server, and drops the job."""
    await submit(connection, "j1", ("Status", "404"), ("Description", "No Messages"))
    await submit(connection, "j2", ("Status", "409"), ("Description", "Consumer Deleted"))
    await submit(connection, "j3", ("Status", "100"))
    worker.pull(3)
    assert await worker.wait_end() == "filled"
    assert worker.jobs == ["j1", "j2", "j3"]


async def test_an_empty_body_is_a_delivery_that_is_refused_and_no_status(
    worker: Worker, connection: Connection
) -> None:
    await store(connection, NAMES.request("simulator", "standard", "t", "x"), b"", headers.block(("Status", "503")))
    worker.pull()
    assert await worker.wait_end() == "filled"
    (delivery,) = worker.deliveries
    assert delivery.stored.request is None
    assert delivery.job == f"s{delivery.stored.sequence}"


async def test_a_pull_on_a_consumer_that_is_not_there_is_broken(worker: Worker) -> None:
    """The server says nothing but that nobody listens."""
    worker.pull(consumer="nobody-standard-0")
    assert await worker.wait_end() == "broken"


async def test_a_consumer_that_is_deleted_breaks_its_pull(worker: Worker, connection: Connection) -> None:
    worker.pull(expires_s=20)
    await connection.request("$JS.API.INFO")
    await connection.request(f"$JS.API.CONSUMER.DELETE.{NAMES.requests_stream}.{CONSUMER}")
    assert await worker.wait_end() == "broken"


async def test_the_loss_of_the_connection_breaks_every_pull(
    worker: Worker, connection: Connection, mesh_server: EmbeddedServer
) -> None:
    connection.listen(lambda connected: None if connected else worker.puller.reset())
    worker.pull(expires_s=20)
    worker.pull(expires_s=20, consumer="simulator-batch-0")
    await mesh_server.stop(kill=True)
    await wait_until(lambda: len(worker.ends) == 2)
    assert set(worker.ends) == {(CONSUMER, "broken"), ("simulator-batch-0", "broken")}
    with pytest.raises(DisconnectedError):
        worker.pull()
    assert worker.puller.open_pulls == 0


async def test_after_a_restart_of_the_server_jobs_are_pulled_again(
    worker: Worker, connection: Connection, mesh_server: EmbeddedServer
) -> None:
    await submit(connection, "j1")
    await mesh_server.stop(kill=True)
    await wait_until(lambda: not connection.is_connected)
    await mesh_server.start()
    await connection.wait_connected(10)

    async def there() -> bool:
        return bool((await state(connection))["num_pending"] == 1)

    await wait_until(there)
    worker.pull()
    assert await worker.wait_end() == "filled"
    assert worker.jobs == ["j1"]


async def test_a_pull_the_server_forgot_is_given_up(
    worker: Worker, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.puller, "_next", "nowhere.")
    connection.subscribe("nowhere.>", lambda *message: None)
    monkeypatch.setattr("mesh.broker.stores.pulls.NO_WAIT_LIMIT_S", 60.0)
    worker.pull(consumer="m-standard-1")
    monkeypatch.setattr("mesh.broker.stores.pulls.NO_WAIT_LIMIT_S", 0.0)
    worker.pull()

    def is_given_up() -> bool:
        worker.puller.expire()
        return bool(worker.ends)

    await wait_until(is_given_up)
    assert worker.ends == [(CONSUMER, "broken")]
    assert worker.puller.open_pulls == 1, "the other one's time is not over"


async def test_a_status_of_a_pull_given_up_touches_no_other(worker: Worker, connection: Connection) -> None:
    statuses: list[bytes] = []
    connection.subscribe(worker.puller._inbox + ".1", lambda subject, reply, payload, header: statuses.append(header))
    worker.pull(expires_s=0.3)
    worker.puller.reset()
    worker.ends.clear()
    worker.pull(expires_s=60)
    await wait_until(lambda: statuses)
    assert b" 408 " in statuses[0]
    await connection.request("$JS.API.INFO")  # so the puller has heard it too
    assert worker.ends == []
    assert worker.puller.open_pulls == 1


async def test_what_is_no_job_is_logged_and_left(
    worker: Worker, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    connection.publish(worker.puller._inbox + ".1", b"", b"NATS/1.0 404\r\n\r\n")
    connection.publish(worker.puller._inbox + ".x", b"")
    await connection.request("$JS.API.INFO")
    assert worker.ends == []
    await submit(connection, "j1")
    worker.pull()
    assert await worker.wait_end() == "filled"


# What ends a delivery.


async def pulled(worker: Worker, connection: Connection) -> Delivery:
    await submit(connection, "j1")
    worker.pull()
    await worker.wait_end()
    return worker.deliveries.pop()


async def test_an_acknowledged_job_leaves_the_queue(worker: Worker, connection: Connection) -> None:
    delivery = await pulled(worker, connection)
    assert await worker.leases.ack(delivery) is True
    assert (await topology.stream_state(connection, NAMES.requests_stream))["messages"] == 0
    assert await worker.leases.ack(delivery) is True, "once more does no harm"


async def test_a_job_handed_back_comes_at_once_and_is_counted(worker: Worker, connection: Connection) -> None:
    delivery = await pulled(worker, connection)
    worker.leases.nak(delivery)
    worker.pull(expires_s=5)
    assert await worker.wait_end() == "filled"
    assert worker.deliveries[0].delivered == 2
    assert worker.deliveries[0].job == "j1"


async def test_a_job_handed_back_for_later_comes_later(worker: Worker, connection: Connection) -> None:
    delivery = await pulled(worker, connection)
    worker.leases.nak(delivery, 0.4)
    began = time.monotonic()
    worker.pull(expires_s=5)
    assert await worker.wait_end() == "filled"
    assert 0.3 < time.monotonic() - began < 3


async def test_what_can_never_be_a_job_is_removed(worker: Worker, connection: Connection) -> None:
    delivery = await pulled(worker, connection)
    worker.leases.term(delivery, "a reason\r\nof two lines")

    async def gone() -> bool:
        return bool((await topology.stream_state(connection, NAMES.requests_stream))["messages"] == 0)

    await wait_until(gone)


def has(found: Sized, count: int) -> bool:
    return len(found) >= count


async def test_a_lease_that_is_renewed_keeps_the_job(server: EmbeddedServer, connection: Connection) -> None:
    settings = MeshSettings(lanes=1, ack_wait_s=1)
    await topology.apply(connection, await topology.plan(Broker(connection, NAMES), settings, ["simulator"]))
    worker = Worker(connection)
    delivery = await pulled(worker, connection)
    began = time.monotonic()
    confirmed = []
    while time.monotonic() - began < 1.8:
        worker.leases.extend(delivery, lambda *answer: confirmed.append(answer), 1.0)
        await wait_until(partial(has, confirmed, len(confirmed) + 1))
    assert (await state(connection))["num_redelivered"] == 0
    assert all(error is None for error, _, _ in confirmed)
    assert len(confirmed) >= 5
    worker.pull(expires_s=5)
    assert await worker.wait_end() == "filled"
    assert worker.deliveries[0].delivered == 2, "without renewal it comes again"
    worker.puller.close()


async def test_an_ack_without_connection_is_not_confirmed(
    worker: Worker, connection: Connection, mesh_server: EmbeddedServer
) -> None:
    delivery = await pulled(worker, connection)
    await mesh_server.stop(kill=True)
    assert await worker.leases.ack(delivery) is False
    with pytest.raises(DisconnectedError):
        worker.leases.nak(delivery)
