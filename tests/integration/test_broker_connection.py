"""One connection through everything that a server and a network do to it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.broker.transport.connection import Connection, connect, open_connection
from mesh.broker.transport.options import ConnectOptions
from mesh.errors import (
    BrokerTimeoutError,
    ConfigError,
    DisconnectedError,
    MeshError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from mesh.protocol.timing import CONNECTION_PING_S, CONNECTION_PINGS
from mesh.server import EmbeddedServer, free_port
from tests.proxy import proxied
from tests.running import wait_until


class Heard(list[bytes]):
    """A handler that keeps what it heard."""

    def __call__(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        self.append(payload)


def options(server: EmbeddedServer, **more: Any) -> ConnectOptions:
    return ConnectOptions(servers=(server.url,), name="test", **more)


@pytest.fixture
async def echo(connection: Connection, server: EmbeddedServer) -> AsyncIterator[Connection]:
    """A peer on a connection of its own that answers what it is asked on `echo`."""
    async with connect(options(server)) as peer:
        peer.subscribe("echo", lambda subject, reply, payload, header: peer.publish(reply.decode(), payload, header))
        await peer.request("$JS.API.INFO")  # its subscription is known to the server now
        yield peer


async def flushed(connection: Connection) -> None:
    """What was sent before this has reached the server."""
    await connection.request("$JS.API.INFO")


# Asking.


async def test_a_request_is_answered_with_header_and_payload(connection: Connection, echo: Connection) -> None:
    header = b"NATS/1.0\r\nA: b\r\n\r\n"
    assert await connection.request("echo", b"hello") == (b"", b"hello")
    assert await connection.request("echo", b"", header) == (header, b"")


async def test_many_requests_at_once_each_get_their_own_answer(connection: Connection, echo: Connection) -> None:
    bodies = [b"%d" % number for number in range(500)]
    answers = await asyncio.gather(*(connection.request("echo", body) for body in bodies))
    assert [payload for _, payload in answers] == bodies


async def test_where_nobody_listens_the_answer_comes_at_once(connection: Connection) -> None:
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="nobody answers on nobody"):
        await connection.request("nobody", timeout_s=20)
    assert time.monotonic() - began < 2


async def test_a_request_waits_no_longer_than_it_was_told(connection: Connection) -> None:
    connection.subscribe("silent", Heard())
    began = time.monotonic()
    with pytest.raises(BrokerTimeoutError, match="no answer from silent"):
        await connection.request("silent", timeout_s=0.3)
    assert 0.3 <= time.monotonic() - began < 2


async def test_a_request_that_is_given_up_leaves_nothing_behind(connection: Connection) -> None:
    connection.subscribe("silent", Heard())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.request("silent", timeout_s=0.2)
    await wait_until(lambda: len(connection._calls) == 0, 2.0)


async def test_answers_are_collected_up_to_the_last(connection: Connection, echo: Connection) -> None:
    def several(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        for number in range(3):
            echo.publish(reply.decode(), b"%d" % number)

    echo.subscribe("several", several)
    await flushed(echo)
    found = await connection.collect("several", b"", lambda header, payload: payload == b"2")
    assert [payload for _, payload in found] == [b"0", b"1", b"2"]
    with pytest.raises(BrokerTimeoutError):
        await connection.collect("several", b"", lambda header, payload: False, timeout_s=0.2)
    with pytest.raises(UnavailableError):
        await connection.collect("nobody", b"", lambda header, payload: False)
    assert len(connection._calls) == 0


async def test_a_message_too_large_is_refused_here_and_the_connection_lives(
    connection: Connection, echo: Connection
) -> None:
    """nats-server ends a connection that sends one; the reader of every other job would notice."""
    with pytest.raises(TooLargeError, match="max_payload"):
        connection.publish("echo", b"x" * (connection.max_payload + 1))
    with pytest.raises(TooLargeError):
        await connection.request("echo", b"x" * connection.max_payload, b"NATS/1.0\r\n\r\n")
    with pytest.raises(TooLargeError):
        connection.call("echo", b"x" * (connection.max_payload + 1), b"", lambda *answer: None)
    assert len(connection._calls) == 0
    body = b"x" * connection.max_payload
    assert (await connection.request("echo", body))[1] == body
    assert connection.reconnects == 0


# Hearing.


async def test_subscriptions_hear_until_they_are_closed(connection: Connection, echo: Connection) -> None:
    heard = Heard()
    subscription = connection.subscribe("news.*", heard)
    await flushed(connection)
    echo.publish("news.one", b"1")
    await wait_until(lambda: heard == [b"1"])
    subscription.close()
    subscription.close()
    await flushed(connection)
    echo.publish("news.two", b"2")
    await flushed(echo)
    await flushed(connection)
    assert heard == [b"1"]


async def test_a_queue_group_shares_its_messages(connection: Connection, echo: Connection) -> None:
    one, two = Heard(), Heard()
    connection.subscribe("work", one, "group")
    connection.subscribe("work", two, "group")
    await flushed(connection)
    for number in range(50):
        echo.publish("work", b"%d" % number)
    await wait_until(lambda: len(one) + len(two) == 50)
    assert one
    assert two


async def test_a_handler_that_raises_does_not_end_the_reading(
    connection: Connection, echo: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def broken(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        raise RuntimeError("a handler's own fault")

    connection.subscribe("news", broken)
    connection.subscribe("news", heard)
    await flushed(connection)
    echo.publish("news", b"1")
    echo.publish("news", b"2")
    await wait_until(lambda: heard == [b"1", b"2"])
    assert "a message handler failed" in caplog.text
    assert (await connection.request("echo", b"still here"))[1] == b"still here"


async def test_a_reply_handler_that_raises_does_not_end_the_reading(connection: Connection, echo: Connection) -> None:
    def broken(error: MeshError | None, header: bytes, payload: bytes) -> None:
        raise RuntimeError("a handler's own fault")

    connection.call("echo", b"", b"", broken)
    assert (await connection.request("echo", b"still here"))[1] == b"still here"


# Losing the server.


async def test_after_a_crash_of_the_server_everything_goes_on(connection: Connection, server: EmbeddedServer) -> None:
    heard = Heard()
    changes: list[bool] = []
    connection.subscribe("news", heard)
    connection.listen(changes.append)
    await flushed(connection)
    await server.stop(kill=True)
    await wait_until(lambda: not connection.is_connected)
    await server.start()
    await connection.wait_connected(10)
    await flushed(connection)
    connection.publish("news", b"1")
    await wait_until(lambda: heard == [b"1"])
    assert changes == [False, True]
    assert connection.reconnects == 1


async def test_a_call_under_way_when_the_server_dies_is_told_at_once(
    connection: Connection, server: EmbeddedServer
) -> None:
    connection.subscribe("silent", Heard())
    asking = asyncio.create_task(connection.request("silent", timeout_s=60))
    await flushed(connection)
    await server.stop(kill=True)
    with pytest.raises(DisconnectedError, match="broke before silent answered"):
        await asyncio.wait_for(asking, 5)


async def test_nothing_is_kept_for_later_while_there_is_no_connection(
    connection: Connection, server: EmbeddedServer
) -> None:
    """What nats-py would send after a reconnect is a zombie's: its job may be another's by then."""
    heard = Heard()
    changes: list[bool] = []
    connection.subscribe("news", heard)
    connection.listen(changes.append)
    await server.stop(kill=True)
    await wait_until(lambda: changes == [False])
    with pytest.raises(DisconnectedError):
        connection.publish("news", b"late")
    with pytest.raises(DisconnectedError):
        connection.call("news", b"late", b"", lambda *answer: None)
    with pytest.raises(DisconnectedError):
        await connection.request("news", b"late")
    with pytest.raises(DisconnectedError):
        await connection.wait_connected(0.05)
    assert connection.link._pending == []
    await server.start()
    await connection.wait_connected(10)
    connection.publish("news", b"new")
    await wait_until(lambda: heard)
    assert heard == [b"new"]
    assert len(connection._calls) == 0


async def test_what_is_subscribed_while_the_server_is_away_is_heard_when_it_is_back(
    connection: Connection, server: EmbeddedServer
) -> None:
    kept, gone = Heard(), Heard()
    closed = connection.subscribe("gone", gone)
    await server.stop(kill=True)
    await wait_until(lambda: not connection.is_connected)
    connection.subscribe("kept", kept)
    closed.close()
    await server.start()
    await connection.wait_connected(10)
    await flushed(connection)
    connection.publish("kept", b"1")
    connection.publish("gone", b"1")
    await wait_until(lambda: kept == [b"1"])
    await flushed(connection)
    assert gone == []


async def test_what_nats_closes_for_good_is_opened_anew_with_every_subscription(
    connection: Connection, server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A protocol error ends nats-py's client for ever; a worker must not sit there deaf."""
    heard = Heard()
    changes: list[bool] = []
    connection.subscribe("news", heard)
    connection.listen(changes.append)
    await flushed(connection)
    first = connection.link
    connection.link.write(b"NONSENSE\r\n")
    await wait_until(lambda: connection.link is not first and connection.is_connected)
    await flushed(connection)
    connection.publish("news", b"1")
    await wait_until(lambda: heard == [b"1"])
    assert changes == [False, True]
    assert "closed the connection for good" in caplog.text


@pytest.mark.slow
async def test_a_server_that_is_frozen_is_noticed_within_three_pings(
    connection: Connection, server: EmbeddedServer
) -> None:
    changes: list[bool] = []
    connection.listen(changes.append)
    await flushed(connection)
    began = time.monotonic()
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        for _ in range(40):  # more than the sockets hold: nats-py would wait for ever for the rest to be taken
            connection.publish("news", b"x" * 500_000)
        bound_s = CONNECTION_PING_S * (CONNECTION_PINGS + 1) + 2
        await wait_until(lambda: changes == [False], bound_s)
        assert time.monotonic() - began > CONNECTION_PING_S
        with pytest.raises(DisconnectedError):
            connection.publish("news", b"")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    await connection.wait_connected(10)
    await flushed(connection)


async def test_a_listener_that_fails_does_not_keep_the_connection_away(
    connection: Connection, server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[bool] = []

    def broken(connected: bool) -> None:
        raise RuntimeError("a listener's own fault")

    connection.listen(broken)
    unlisten = connection.listen(changes.append)
    await server.stop(kill=True)
    await wait_until(lambda: changes == [False])
    unlisten()
    unlisten()
    await server.start()
    await connection.wait_connected(10)
    await flushed(connection)
    assert changes == [False]
    assert "a connection listener failed" in caplog.text


# Permission.

USERS = """
authorization {
  users: [
    {user: all, password: pass}
    {user: narrow, password: pass, permissions: {publish: ["open.>", "$JS.API.>"], subscribe: ["_INBOX.>", "open.>"]}}
  ]
}
"""


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that knows its users."""
    running = EmbeddedServer(tmp_path / "guarded", extra=USERS)
    await running.start()
    yield running
    await running.stop(kill=True)


async def test_a_forbidden_publish_says_so_quickly(guarded: EmbeddedServer) -> None:
    """NATS answers it with nothing: the request would run into its timeout, and nobody would know why."""
    async with connect(options(guarded, user="narrow", password="pass")) as connection:
        began = time.monotonic()
        with pytest.raises(UnauthorizedError, match=r"may not publish to mesh\.req\.Demo"):
            await connection.request("mesh.req.Demo", b"", timeout_s=20)
        assert time.monotonic() - began < 2
        with pytest.raises(UnavailableError):
            await connection.request("open.nobody")
        assert connection.reconnects == 0


async def test_only_the_forbidden_request_fails(guarded: EmbeddedServer) -> None:
    async with connect(options(guarded, user="narrow", password="pass")) as connection:
        connection.subscribe("open.silent", Heard())
        allowed = asyncio.create_task(connection.request("open.silent", timeout_s=0.5))
        with pytest.raises(UnauthorizedError):
            await connection.request("closed", timeout_s=20)
        with pytest.raises(BrokerTimeoutError):
            await allowed


@pytest.mark.parametrize(
    "user", [{"user": "all", "password": "wrong"}, {}, {"token": "x"}], ids=["wrong", "none", "token"]
)
async def test_a_user_whom_the_server_does_not_know_gets_no_connection(
    guarded: EmbeddedServer, user: dict[str, Any]
) -> None:
    with pytest.raises(MeshError):
        await open_connection(options(guarded, connect_timeout_s=1.0, **user))


# Opening and closing.


async def test_where_no_server_is_the_message_says_what_to_look_at() -> None:
    nowhere = ConnectOptions(servers=(f"nats://me:secret@127.0.0.1:{free_port()}",), connect_timeout_s=0.3)
    with pytest.raises(DisconnectedError, match="is nats-server running there") as refused:
        async with connect(nowhere):
            pass
    assert "secret" not in str(refused.value)
    assert "0.3 s" in str(refused.value)


@pytest.mark.parametrize("key", ["credentials", "nkey_seed"])
async def test_a_credentials_file_that_is_not_there_is_a_setting_at_fault(
    server: EmbeddedServer, tmp_path: Path, key: str
) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        await open_connection(options(server, **{key: tmp_path / "none.creds"}))


async def test_closing_is_idempotent_and_ends_what_is_under_way(server: EmbeddedServer) -> None:
    connection = await open_connection(options(server))
    connection.subscribe("silent", Heard())
    asking = asyncio.create_task(connection.request("silent", timeout_s=60))
    await flushed(connection)
    await connection.close()
    await connection.close()
    with pytest.raises(DisconnectedError, match="closed before silent answered"):
        await asking
    with pytest.raises(DisconnectedError):
        connection.publish("news", b"")
    assert "closed" in repr(connection)


async def test_what_was_published_last_still_arrives(server: EmbeddedServer, connection: Connection) -> None:
    heard = Heard()
    connection.subscribe("news", heard)
    await flushed(connection)
    async with connect(options(server)) as other:
        other.publish("news", b"last words")
    await wait_until(lambda: heard == [b"last words"])


@pytest.mark.parametrize("away", [False, True])
async def test_after_closing_no_task_is_left(server: EmbeddedServer, away: bool) -> None:
    before = asyncio.all_tasks()
    connection = await open_connection(options(server))
    if away:
        await server.stop(kill=True)
        await wait_until(lambda: not connection.is_connected)
    await connection.close()
    await wait_until(lambda: asyncio.all_tasks() <= before, 5.0)


async def test_closing_while_the_server_is_frozen_is_bounded(server: EmbeddedServer) -> None:
    connection = await open_connection(options(server))
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        connection.publish("news", b"x")
        await connection.close()
        assert time.monotonic() - began < 5
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


async def test_a_flush_that_was_given_up_does_not_deafen_the_connection(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-py ends its read loop over the late PONG, without a word to anybody who waits."""
    async with proxied(server.port) as proxy, connect(ConnectOptions(servers=(proxy.url,), name="test")) as connection:
        proxy.hold_answers()
        with pytest.raises(TimeoutError):
            await connection.link.flush(timeout=0.05)
        proxy.release()
        await connection.request("$JS.API.INFO", timeout_s=10)
        assert connection.is_connected
        assert connection.reconnects == 0
    assert not caplog.records


async def test_closing_that_is_cancelled_ends_at_once_and_leaves_nothing_behind(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    async with proxied(server.port) as proxy:
        connection = await open_connection(ConnectOptions(servers=(proxy.url,), name="test"))
        proxy.hold_answers()
        closing = asyncio.create_task(connection.close())
        await wait_until(lambda: connection.link._pongs)  # it has asked whether the server has everything
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled()
        assert not connection.is_connected
        proxy.release()
    await wait_until(lambda: asyncio.all_tasks() <= before, 5.0)
    assert not caplog.records


async def test_closing_that_is_cancelled_as_the_server_answers_is_cancelled_all_the_same(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(server.port) as proxy:
        connection = await open_connection(ConnectOptions(servers=(proxy.url,), name="test"))
        proxy.hold_answers()
        closing = asyncio.create_task(connection.close())
        await wait_until(lambda: connection.link._pongs)
        connection.link._pongs[0].add_done_callback(lambda answered: closing.cancel())
        proxy.release()
        await asyncio.wait({closing})
    assert closing.cancelled()
    assert not connection.is_connected
    assert not caplog.records


async def test_its_repr_says_how_it_is(connection: Connection) -> None:
    assert repr(connection) == "<Connection connected, 1 subscriptions, 0 calls>"
    assert connection.server_version.startswith("2.")


@pytest.mark.parametrize("address", ["nats://256.256.256.256:4222", "not a url"])
async def test_every_error_of_connecting_is_one_of_ours(address: str) -> None:
    """Whatever nats-py raises: one `except MeshError` is enough."""
    with pytest.raises(MeshError):
        await open_connection(ConnectOptions(servers=(address,), connect_timeout_s=0.3))


async def test_a_connection_closes_while_others_still_write(server: EmbeddedServer) -> None:
    """A handler may answer in the very turn of the loop in which the connection is closed."""
    async with connect(ConnectOptions(servers=(server.url,), name="talker")) as connection:

        async def talk() -> None:
            while connection.is_connected:
                connection.publish("noise", b"x")
                await asyncio.sleep(0)

        talking = asyncio.create_task(talk())
        await connection.request("$JS.API.INFO")
    await talking
    assert not connection.is_connected


async def test_closing_after_the_socket_was_lost_with_something_unsent_raises_nothing(
    mesh_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await open_connection(ConnectOptions(servers=(mesh_server.url,), name="test"))

    async def lost() -> None:
        raise ConnectionResetError("Connection lost")  # as asyncio's streams do once their socket is gone

    abort = connection.link.abort

    def abort_with_something_unsent() -> None:
        connection.publish("mesh.sys.nobody", b"unsent")
        abort()
        monkeypatch.setattr(connection.link._transport, "drain", lost)

    monkeypatch.setattr(connection.link, "abort", abort_with_something_unsent)
    await connection.close()
    assert not connection.is_connected
