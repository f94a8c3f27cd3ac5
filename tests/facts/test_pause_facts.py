"""What nats-server does with pulls on a paused consumer, which `mesh pause` and workers count on.

Each docstring says what follows for mesh.
"""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import wait_until

NAMES = Names()
CONSUMER, OTHER = "m-standard-0", "m-batch-0"


class Paused:
    """One paused consumer, and what its pulls were answered."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[tuple[float, bytes]] = []  # when, and the header: empty for a job
        self.inbox = connection.new_inbox()
        connection.subscribe(self.inbox, lambda s, r, p, header: self.heard.append((time.monotonic(), header)))

    async def pause(self, until: datetime | None) -> None:
        body = {} if until is None else {"pause_until": until.isoformat().replace("+00:00", "Z")}
        subject = f"$JS.API.CONSUMER.PAUSE.{NAMES.requests_stream}.{CONSUMER}"
        _, payload = await self.connection.request(subject, json.dumps(body).encode())
        assert "error" not in json.loads(payload)

    async def submit(self) -> None:
        await self.connection.request(NAMES.request("m", "standard", "t", "x"), b'{"prompt":"a"}')

    def pull(self, **how: object) -> None:
        self._pull(CONSUMER, self.inbox, **how)

    async def serve_another_consumer(self) -> None:
        """Return when one that is not paused has been served, by a pull that waited."""
        served: list[bytes] = []
        inbox = self.connection.new_inbox()
        self.connection.subscribe(inbox, lambda subject, reply, payload, header: served.append(payload))
        self._pull(OTHER, inbox, expires=20 * topology.NS)
        await self.connection.request(NAMES.request("m", "batch", "t", "x"), b'{"prompt":"b"}')
        await wait_until(lambda: served)

    def _pull(self, consumer: str, inbox: str, **how: object) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{NAMES.requests_stream}.{consumer}"
        body = json.dumps({"batch": 1, "group": topology.GROUP, **how}).encode()
        self.connection.publish(subject, body, reply=inbox)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture
async def paused(server: EmbeddedServer, connection: Connection) -> Paused:
    plan = await topology.plan(Broker(connection, NAMES), MeshSettings(lanes=1), ["m"])
    await topology.apply(connection, plan)
    found = Paused(connection)
    await found.pause(soon(3600))
    await found.submit()
    return found


async def test_a_now_or_never_pull_is_told_that_nothing_is_there(paused: Paused) -> None:
    """So a paused queue holds none of a worker's slots, and the other tiers have them all."""
    paused.pull(no_wait=True)
    await wait_until(lambda: paused.heard)
    assert paused.heard[0][1].startswith(b"NATS/1.0 404")


async def test_a_pull_that_waits_is_served_when_the_pause_ends_by_itself(paused: Paused) -> None:
    paused.pull(expires=20 * topology.NS)
    await paused.pause(soon(0.3))
    await wait_until(lambda: paused.heard)
    assert paused.heard[0][1] == b""


async def test_a_pull_that_waits_is_not_served_when_the_pause_is_lifted(paused: Paused) -> None:
    """So `mesh resume` lets a short pause end, instead of lifting the long one: see control/queues/pause.

    Once this fails, nats-server wakes them, and `resume` can be one request.
    """
    paused.pull(expires=20 * topology.NS)
    await paused.connection.request("$JS.API.INFO")
    await paused.pause(None)
    await paused.serve_another_consumer()  # a job that is stored later, and delivered: the first one had its time
    assert paused.heard == []
    paused.pull(expires=20 * topology.NS)  # whoever asks next wakes the consumer for both
    await wait_until(lambda: paused.heard)
