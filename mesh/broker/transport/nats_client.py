"""nats-py's client with a synchronous way to send and receive, for the hot path.

nats-py connects, authenticates, speaks TLS, reconnects and parses. Its publish and subscribe cost a future, a queue
and a task each, too much for a token stream. This subclass adds two cheaper methods. `write` collects commands and
sends them once per turn of the event loop. `attach` calls a plain function for each message.

tests/unit/broker/test_nats_client.py checks the methods of nats-py 2.16 that are overridden; pyproject.toml pins the
minor version. Source: nats/aio/client.py of nats-py.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client

log = logging.getLogger("mesh.broker")

# subject, reply, payload, header block; all bytes, empty if absent. Must not block and should not raise.
Handler = Callable[[bytes, bytes, bytes, bytes], None]


UNSUBSCRIBE_WITHIN_S = 0.02


class NoTlsError(nats.errors.Error):  # type: ignore[misc]  # nats-py is not typed
    """A server that should speak TLS does not."""


class _Interest:
    """An entry for nats-py's table of subscriptions, so that nats-py replays it after a reconnect."""

    __slots__ = ("_id", "_queue", "_subject", "handler")
    _max_msgs = 0
    _received = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, sid: int, subject: str, queue: str, handler: Handler) -> None:
        self._id = sid
        self._subject = subject
        self._queue = queue
        self.handler = handler


class NatsClient(Client):  # type: ignore[misc]  # nats-py is not typed
    """One link to a server. `Connection` owns it, and replaces it when nats-py gives up."""

    def __init__(self, demands_tls: bool = False) -> None:
        """Create a client. `demands_tls`: refuse any server without TLS, also at a nats:// address."""
        super().__init__()
        self._demands_tls = demands_tls
        self._kick_due = False
        self._late_kick_due = False
        self._late: list[_Interest] = []  # attached while there was no connection

    def write(self, command: bytes) -> None:
        """Send a protocol command, together with all others of this turn of the loop. Needs a connection."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._kick_due:
            self._kick_due = True
            asyncio.get_running_loop().call_soon(self._kick)

    def attach(self, subject: str, queue: str, handler: Handler) -> int:
        """Subscribe with a synchronous handler; return the subscription's id."""
        self._sid += 1
        sid: int = self._sid
        self._subs[sid] = entry = _Interest(sid, subject, queue, handler)
        if self.is_connected:
            self._announce(entry)
        else:
            self._late.append(entry)
        return sid

    def abort(self) -> None:
        """Drop the socket and its unsent data; a normal close would wait for a stopped server to take it."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def end(self, timeout_s: float) -> None:
        """Send the data written so far, within `timeout_s`, and close. A cancellation closes at once."""
        # A separate task: nats-py's flush loses a cancellation that arrives with the server's answer (Python 3.11).
        sending = asyncio.get_running_loop().create_task(self._send_rest(), name="mesh-flush")
        try:
            await asyncio.wait({sending}, timeout=timeout_s)
        finally:
            self.abort()  # a stopped server will never take the rest
            self.discard_unsent()  # nats-py would write it to the lost socket, and raise
            await self.close()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_rest(self) -> None:
        if self.is_connected:
            with contextlib.suppress(Exception):  # a broken connection is closed in any case
                self._kick()
                await self.flush()

    def announce_late(self) -> None:
        """Subscribe after a reconnect to the subjects that were attached while nats-py replayed its table."""
        late, self._late = self._late, []
        for entry in late:
            if entry._id in self._subs:
                self._announce(entry)  # a second SUB with the same id changes nothing

    def detach(self, sid: int) -> None:
        """End a subscription made by `attach`. Unknown ids are ignored.

        The command is sent with the next write, or after UNSUBSCRIBE_WITHIN_S. That saves one write for every job.
        Messages that still arrive in this time are dropped.
        """
        if self._subs.pop(sid, None) is not None and self.is_connected:
            command = b"UNSUB %d\r\n" % sid
            self._pending.append(command)
            self._pending_data_size += len(command)
            if not self._late_kick_due:
                self._late_kick_due = True
                asyncio.get_running_loop().call_later(UNSUBSCRIBE_WITHIN_S, self._kick_late)

    def discard_unsent(self) -> None:
        """Discard data that was not sent before a disconnect: its senders got an error."""
        self._pending.clear()
        self._pending_data_size = 0

    def _announce(self, entry: _Interest) -> None:
        self.write(f"SUB {entry._subject} {entry._queue} {entry._id}\r\n".encode())

    def _kick_late(self) -> None:
        self._late_kick_due = False
        self._kick()

    def _kick(self) -> None:
        self._kick_due = False
        if self._pending and self.is_connected and self._transport:
            try:
                self._transport.write(b"".join(self._pending))
            except RuntimeError:  # uvloop: the socket is closed, so nothing was sent; nats-py will notice
                return
            self._pending.clear()
            self._pending_data_size = 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Handle one message; called by nats-py's parser."""
        entry: Any = self._subs.get(sid)
        if type(entry) is not _Interest:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            entry.handler(subject, reply, data, headers or b"")
        except Exception:  # an exception here would silently end nats-py's read loop
            log.exception("a message handler failed", extra={"event": "handler_failed"})

    async def _process_pong(self) -> None:
        """Handle a PONG; called by nats-py's parser."""
        if self._pongs and self._pongs[0].done():  # a flush was cancelled; nats-py would end its read loop
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Check the server's greeting; called by nats-py before it sends anything."""
        scheme = self._current_server.uri.scheme
        wants_tls = scheme == "tls" or (self._demands_tls and scheme != "wss")  # wss has TLS in its transport
        if initial_connection and wants_tls and not info.get("tls_required"):
            raise NoTlsError("TLS is required, and the server offers none")  # nats-py would continue in clear text
        await super()._process_info(info, initial_connection)

    async def _attempt_reconnect(self) -> None:
        """Drop the old socket, then reconnect; called by nats-py when the connection broke."""
        # nats-py waits for the old socket to flush, which never ends if the server is stopped.
        self.abort()
        await super()._attempt_reconnect()
