"""nats-py's client with a synchronous path in and out, for the traffic that is hot.

nats-py connects, authenticates, speaks TLS, reconnects and parses. Its publish and subscribe cost a future, a
queue and a task each, which a token stream cannot afford, so this subclass adds two shortcuts beside them:
`write` collects commands and sends them once per turn of the event loop, and `attach` calls a plain function
for each message. Used by `broker/transport/connection` alone.

What it overrides of nats-py 2.16 is pinned by tests/unit/broker/test_nats_client.py; pyproject.toml holds the
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
    """What nats-py must find in its table of subscriptions to replay ours after a reconnect."""

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
    """One connection. Made and owned by `Connection`, which replaces it when nats-py gives up on it."""

    def __init__(self, demands_tls: bool = False) -> None:
        """`demands_tls`: go on with no server that does not speak TLS, whatever its address says."""
        super().__init__()
        self._demands_tls = demands_tls
        self._kick_due = False
        self._late_kick_due = False
        self._late: list[_Interest] = []  # attached while there was no connection

    def write(self, command: bytes) -> None:
        """Send a protocol command with everything else written in this turn of the loop. Needs a connection."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._kick_due:
            self._kick_due = True
            asyncio.get_running_loop().call_soon(self._kick)

    def attach(self, subject: str, queue: str, handler: Handler) -> int:
        """Subscribe with a synchronous handler; returns the subscription's id."""
        self._sid += 1
        sid: int = self._sid
        self._subs[sid] = entry = _Interest(sid, subject, queue, handler)
        if self.is_connected:
            self._announce(entry)
        else:
            self._late.append(entry)
        return sid

    def abort(self) -> None:
        """Drop the socket, with what it holds unsent; closing would wait for a stopped server to take it."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def end(self, timeout_s: float) -> None:
        """Send what was written, which may take `timeout_s`, and close. Cancelled, it closes at once."""
        # A task of its own: cancelled just as the server answers, nats-py's flush loses the cancellation (Python 3.11).
        sending = asyncio.get_running_loop().create_task(self._send_rest(), name="mesh-flush")
        try:
            await asyncio.wait({sending}, timeout=timeout_s)
        finally:
            self.abort()  # what a stopped server did not take by now it never will
            self.discard_unsent()  # nats-py would write it to the lost socket, and raise
            await self.close()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_rest(self) -> None:
        if self.is_connected:
            with contextlib.suppress(Exception):  # a broken connection is closed all the same
                self._kick()
                await self.flush()

    def announce_late(self) -> None:
        """After a reconnect: nats-py replays its table, but misses what was attached while it did."""
        late, self._late = self._late, []
        for entry in late:
            if entry._id in self._subs:
                self._announce(entry)  # a second SUB with the same id changes nothing

    def detach(self, sid: int) -> None:
        """End a subscription made by `attach`. Unknown ids are ignored.

        The server is told with whatever is sent next, or a little later: nobody waits for it, and one write less
        for every job is worth the few messages that may still come and are dropped.
        """
        if self._subs.pop(sid, None) is not None and self.is_connected:
            command = b"UNSUB %d\r\n" % sid
            self._pending.append(command)
            self._pending_data_size += len(command)
            if not self._late_kick_due:
                self._late_kick_due = True
                asyncio.get_running_loop().call_later(UNSUBSCRIBE_WITHIN_S, self._kick_late)

    def discard_unsent(self) -> None:
        """Forget what was not sent before a disconnect: its senders were told that it failed."""
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
            except RuntimeError:  # uvloop's word for a closed socket; nats-py is about to notice, and nothing was sent
                return
            self._pending.clear()
            self._pending_data_size = 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Called by nats-py's parser for each message."""
        entry: Any = self._subs.get(sid)
        if type(entry) is not _Interest:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            entry.handler(subject, reply, data, headers or b"")
        except Exception:  # an exception here would end nats-py's read loop for good, without a word
            log.exception("a message handler failed", extra={"event": "handler_failed"})

    async def _process_pong(self) -> None:
        """Called by nats-py's parser for each PONG."""
        if self._pongs and self._pongs[0].done():  # a flush was given up; nats-py would end its read loop over it
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Called by nats-py with the server's greeting, before anything is sent."""
        scheme = self._current_server.uri.scheme
        wants_tls = scheme == "tls" or (self._demands_tls and scheme != "wss")  # which has it below, or does not open
        if initial_connection and wants_tls and not info.get("tls_required"):
            raise NoTlsError("TLS was asked for, and the server offers none")  # nats-py would go on in clear text
        await super()._process_info(info, initial_connection)

    async def _attempt_reconnect(self) -> None:
        """Called by nats-py when the connection broke."""
        # nats-py waits for the old socket to flush; one to a stopped server never does.
        self.abort()
        await super()._attempt_reconnect()
