"""The soak's own instruments: a proxy that cuts and heals, a watcher that hears what JetStream refuses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mesh.broker.broker import Broker
from mesh.broker.stores.results import ResultStore
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import Result, Started
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from mesh.verify.soak.history import RunHistory
from mesh.verify.soak.proxy import Proxy
from mesh.verify.soak.wire import Watcher
from tests.running import wait_until

NAMES = Names()
STARTED = codec.encode(Started(id="j", attempt=1, index=0, worker="w", unix_ms=1, sequence=1))
RESULT = codec.encode(Result(id="j", tenant="t", model="m", status="finished", text=""))


@pytest.fixture
async def watched(mesh_server: EmbeddedServer) -> AsyncIterator[tuple[RunHistory, Watcher]]:
    """A history, and the watcher that writes it."""
    history = RunHistory()
    clock = asyncio.get_running_loop().time
    async with connect(ConnectOptions(servers=(mesh_server.url,), name="watcher")) as ears:
        watcher = Watcher(Broker(ears, NAMES), history, clock)
        watcher.start()
        watcher.deaf(clock())
        watcher.again()
        await wait_until(lambda: history.missed)  # now it hears
        yield history, watcher
        watcher.close()


async def test_the_watcher_sees_what_is_refused_and_under_which_fence(
    watched: tuple[RunHistory, Watcher], connection: Connection
) -> None:
    history, _ = watched
    subject = NAMES.events(JobKey("t", "j"))
    for fence in (0, 7):
        _, payload = await connection.request(subject, STARTED, headers.expecting(fence))
        assert (b"error" in payload) == (fence == 7)
    await connection.request(subject, STARTED)
    await wait_until(lambda: len(history.sent) == 3)
    assert [(sent.what, sent.to, sent.expected) for sent in history.sent] == [
        ("started", "events", 0),
        ("started", "events", 7),
        ("started", "events", None),
    ]
    assert len({sent.sender for sent in history.sent}) == 1
    assert [sent.order for sent in history.sent] == sorted(sent.order for sent in history.sent)


async def test_the_watcher_sees_results_with_their_fence_and_acks_with_their_reply(
    watched: tuple[RunHistory, Watcher], connection: Connection
) -> None:
    history, watcher = watched
    assert await ResultStore(Broker(connection, NAMES)).create(JobKey("t", "j"), RESULT, 60_000)
    consumer = f"$JS.ACK.{NAMES.requests_stream}.c.1.42.1.1700000000000000000.0"
    connection.publish(consumer, b"+WPI")
    connection.publish(consumer, b"-NAK {}")
    connection.publish(consumer, b"+ACK", reply="_INBOX.me.1")
    connection.publish(consumer, b"+TERM no")
    await wait_until(lambda: len(history.settled) == 3)
    assert [(sent.to, sent.what, sent.expected) for sent in history.sent] == [("results", "result", 0)]
    assert [(each.sequence, each.verb, each.is_confirmed, each.sender) for each in history.settled] == [
        (42, "nak", False, ""),
        (42, "ack", True, "_INBOX.me"),
        (42, "term", False, ""),
    ]
    assert watcher.ended == set()  # a Result that is stored, and not announced


async def test_the_watcher_knows_which_request_is_whose(
    watched: tuple[RunHistory, Watcher], connection: Connection
) -> None:
    history, _ = watched
    subject = NAMES.request("simulator", "standard", "default", "x")
    await connection.request(
        subject, b'{"id": "job-1", "prompt": "x"}', headers.block(("Nats-Msg-Id", "default.job-1"))
    )
    await wait_until(lambda: history.sequences)
    assert history.sequences == {1: "job-1"}


async def test_the_watcher_notes_when_it_was_deaf(
    watched: tuple[RunHistory, Watcher], mesh_server: EmbeddedServer
) -> None:
    history, _ = watched
    known = len(history.missed)
    await mesh_server.stop(kill=True)
    await mesh_server.start()
    await wait_until(lambda: len(history.missed) > known)
    assert history.missed[-1].to_s > history.missed[-1].from_s


@pytest.fixture
async def proxied(server: EmbeddedServer) -> AsyncIterator[tuple[Proxy, Connection]]:
    """A proxy before `server`, and a connection through it."""
    proxy = Proxy([server.port])
    await proxy.start()
    async with connect(ConnectOptions(servers=(proxy.url,), name="proxied")) as through:
        yield proxy, through
    await proxy.close()


async def test_what_was_sent_into_a_cut_way_arrives_late(
    proxied: tuple[Proxy, Connection], connection: Connection
) -> None:
    proxy, through = proxied
    heard: list[bytes] = []
    connection.subscribe("x", lambda subject, reply, payload, header: heard.append(payload))
    await connection.request("$JS.API.INFO")
    proxy.cut()
    through.publish("x", b"from the past")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await wait_until(lambda: heard)
    proxy.heal()
    await wait_until(lambda: heard == [b"from the past"])
    assert through.reconnects == 0


async def test_a_torn_way_is_found_again(proxied: tuple[Proxy, Connection]) -> None:
    proxy, through = proxied
    proxy.reset()
    await wait_until(lambda: through.reconnects == 1)
    await through.request("$JS.API.INFO")


async def test_a_slow_way_is_slow_each_way(proxied: tuple[Proxy, Connection]) -> None:
    proxy, through = proxied
    proxy.delay_s = 0.1
    start_s = asyncio.get_running_loop().time()
    await through.request("$JS.API.INFO")
    assert asyncio.get_running_loop().time() - start_s >= 0.2


async def test_a_proxy_takes_the_next_server_when_the_first_is_gone(server: EmbeddedServer) -> None:
    gone = Proxy([1])
    await gone.start()
    free = gone.port
    await gone.close()
    proxy = Proxy([free, server.port])
    await proxy.start()
    async with connect(ConnectOptions(servers=(proxy.url,), name="proxied")) as through:
        await through.request("$JS.API.INFO")
    await proxy.close()
