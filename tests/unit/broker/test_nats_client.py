"""nats-py still has the internals that `NatsClient` relies on.

If a test fails after an upgrade, compare mesh/broker/transport/nats_client.py with the new source.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from importlib.metadata import version

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from mesh.broker.transport.nats_client import NatsClient, _Interest


def source_of(function: Callable[..., object]) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def attributes(tree: ast.AST, owner: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner
    }


def test_the_version_is_the_one_whose_source_was_read() -> None:
    assert version("nats-py").split(".")[:2] == ["2", "16"]


def test_the_parser_still_gives_us_messages_as_it_did() -> None:
    assert inspect.iscoroutinefunction(Client._process_msg)
    assert list(inspect.signature(Client._process_msg).parameters) == [
        "self",
        "sid",
        "subject",
        "reply",
        "data",
        "headers",
    ]
    assert list(inspect.signature(NatsClient._process_msg).parameters) == list(
        inspect.signature(Client._process_msg).parameters
    )


def test_a_pong_still_answers_the_oldest_flush() -> None:
    assert inspect.iscoroutinefunction(Client._process_pong)
    assert list(inspect.signature(Client._process_pong).parameters) == ["self"]
    text = inspect.getsource(Client._process_pong)
    assert text.index("self._pongs.pop(0)") < text.index("future.set_result(True)")


def test_a_broken_connection_still_ends_in_the_reconnect_that_we_override() -> None:
    assert inspect.iscoroutinefunction(Client._attempt_reconnect)
    assert list(inspect.signature(Client._attempt_reconnect).parameters) == ["self"]
    assert "_attempt_reconnect" in inspect.getsource(Client._process_op_err)


def test_the_old_socket_is_still_closed_first_and_the_callbacks_come_in_order() -> None:
    text = inspect.getsource(Client._attempt_reconnect)
    steps = [
        "self._transport.close()",
        "self._disconnected_cb()",
        "self._process_connect_init()",
        "self._subs.items()",
        "self._flush_pending()",
        "Client.CONNECTED",
        "self._reconnected_cb()",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


async def test_the_attributes_we_write_are_there_and_of_their_kind() -> None:
    link = NatsClient()
    assert link._pending == []
    assert isinstance(link._pending, list)
    assert link._pending_data_size == 0
    assert link._subs == {}
    assert link._sid == 0
    assert link._server_info == {}
    assert link._transport is None
    assert not link.is_connected
    assert isinstance(link.max_payload, int)


def test_the_transport_still_holds_its_stream_writer_under_that_name() -> None:
    from nats.aio import transport

    assert "_io_writer" in attributes(source_of(transport.TcpTransport), "self")


def test_what_reconnect_reads_of_a_subscription_is_what_ours_has() -> None:
    read = attributes(source_of(Client._attempt_reconnect), "sub")
    assert read == {"_max_msgs", "_received", "_subject", "_queue"}
    entry = _Interest(7, "a.b", "q", print)
    assert {name: getattr(entry, name) for name in read} == {
        "_max_msgs": 0,
        "_received": 0,
        "_subject": "a.b",
        "_queue": "q",
    }


def test_what_closing_reads_of_a_subscription_is_what_ours_has() -> None:
    read = attributes(source_of(Client._close), "sub")
    entry = _Interest(7, "a.b", "q", print)
    assert {name for name in read if not hasattr(entry, name)} == set()


def test_the_names_are_those_of_nats_own_subscriptions() -> None:
    own = attributes(source_of(Subscription.__init__), "self")
    assert {"_id", "_subject", "_queue", "_max_msgs", "_received"} <= own


def test_the_greeting_is_processed_before_anything_is_sent() -> None:
    assert list(inspect.signature(Client._process_info).parameters) == ["self", "info", "initial_connection"]
    text = inspect.getsource(Client._process_connect_init)
    assert text.index("_process_info(") < text.index("_connect_command(")


def test_nothing_else_of_nats_client_is_overridden() -> None:
    ours = {name for name in vars(NatsClient) if callable(getattr(NatsClient, name)) and name in dir(Client)}
    assert ours == {"__init__", "_process_msg", "_process_pong", "_process_info", "_attempt_reconnect"}


async def test_what_is_attached_without_a_connection_waits_for_one() -> None:
    link = NatsClient()
    sid = link.attach("a", "", lambda *message: None)
    assert link._subs[sid]._subject == "a"
    assert link._pending == []
    link.detach(sid)
    link.detach(sid)
    assert link._subs == {}


async def test_a_handler_that_fails_does_not_end_the_read_loop(caplog: pytest.LogCaptureFixture) -> None:
    link, heard = NatsClient(), []

    def handler(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        heard.append((subject, payload, header))
        raise RuntimeError("a handler's own fault")

    sid = link.attach("a", "", handler)
    await link._process_msg(sid, b"a", b"", b"x", None)
    await link._process_msg(sid, b"a", b"", b"y", b"NATS/1.0\r\n\r\n")
    assert heard == [(b"a", b"x", b""), (b"a", b"y", b"NATS/1.0\r\n\r\n")]
    assert caplog.text.count("a message handler failed") == 2


async def test_what_was_not_sent_can_be_forgotten() -> None:
    link = NatsClient()
    command = b"PUB a 1\r\nx\r\n"
    link.write(command)
    assert link._pending_data_size == len(command)
    link.discard_unsent()
    assert (link._pending, link._pending_data_size) == ([], 0)


@pytest.mark.parametrize("name", ["_attempt_reconnect", "_process_msg"])
def test_our_overrides_still_call_theirs(name: str) -> None:
    assert f"super().{name}(" in inspect.getsource(getattr(NatsClient, name))
