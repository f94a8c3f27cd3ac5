"""One connection to NATS that reconnects until it is closed.

All traffic of the mesh goes through here. `publish` expects no answer. `call` gives the answer to a callback, for the
hot path. `request` awaits one answer, and `collect` several. `subscribe` receives messages. One inbox subscription and
one table serve all answers.

Guarantees:

* Without a connection, sending raises `DisconnectedError` at once; nothing is buffered. A call whose answer has not
  arrived when the connection breaks fails with the same error. Whether the server acted is then unknown.
* Every call is answered exactly once: by the peer, by a timeout, or by the loss of the connection.
* nats-py closes permanently on some server errors (an expired user, a protocol error). Then this class opens new
  links with the same subscriptions until one works.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from mesh.broker.transport.calls import Calls, Collector, IsLast, OnReply
from mesh.broker.transport.mapping import final_fault, mapped
from mesh.broker.transport.nats_client import Handler, NatsClient
from mesh.broker.transport.options import ConnectOptions
from mesh.broker.transport.tls import check_addresses, tls_context
from mesh.errors import (
    ConfigError,
    DisconnectedError,
    MeshError,
    TooLargeError,
    UnauthorizedError,
)
from mesh.protocol.timing import CONNECTION_PING_S, CONNECTION_PINGS

log = logging.getLogger("mesh.broker")

RECONNECT_WAIT_S = 0.1
REVIVE_MAX_WAIT_S = 2.0
FIRST_CONNECT_S = 5.0
CLOSE_S = 1.0  # for the server to take the data written before the close

Listener = Callable[[bool], None]  # True: connected again; False: connection lost


@dataclass(slots=True, eq=False)
class Subscription:
    """Interest in a subject until `close()`. Survives reconnects."""

    connection: "Connection"
    subject: str
    queue: str
    handler: Handler
    sid: int = 0

    def close(self) -> None:
        """Stop receiving; idempotent."""
        self.connection._unsubscribe(self)


class Connection:
    """One connection; see the module's docstring. Created by `connect`, closed at the end of its context."""

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._link = NatsClient(options.demands_tls)
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(f"{options.inbox_prefix}.{secrets.token_hex(11)}.")
        self._subscriptions: dict[Subscription, None] = {}  # in the order of creation
        self._listeners: list[Listener] = []
        self._is_open = False  # it was connected once
        self._is_closing = False
        self._connected = asyncio.Event()
        self._reviver: asyncio.Task[None] | None = None
        self._reconnects = 0

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else "closed" if self._is_closing else "disconnected"
        return f"<Connection {state}, {len(self._subscriptions)} subscriptions, {len(self._calls)} calls>"

    @property
    def is_connected(self) -> bool:
        return bool(self._link.is_connected)

    @property
    def reconnects(self) -> int:
        """The number of reconnects."""
        return self._reconnects

    @property
    def link(self) -> NatsClient:
        """The nats-py client, for its object store and its server information; not for publishing."""
        return self._link

    @property
    def server_version(self) -> str:
        return str(self._link._server_info.get("version", "0.0.0"))

    @property
    def max_payload(self) -> int:
        """The most bytes of header and payload together."""
        return int(self._link.max_payload)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` on every loss and return of the connection; return a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def wait_connected(self, timeout_s: float) -> None:
        """Return when there is a connection.

        Raises:
            DisconnectedError: there was none within `timeout_s`.
        """
        if not self.is_connected:
            self._connected.clear()  # nats-py may not have reported the break yet
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise DisconnectedError(f"no connection to {self._options.shown} within {timeout_s:g} s") from None

    # Sending.

    def publish(self, subject: str, payload: bytes, header: bytes = b"", reply: str = "") -> None:
        """Send a message without waiting for an answer.

        Args:
            subject: from protocol.subjects or from the server; it is not validated.

        Raises:
            DisconnectedError: there is no connection; nothing was sent.
            TooLargeError: header and payload exceed the server's limit; nats-py would close permanently.
        """
        size = len(header) + len(payload)
        if size > self._link.max_payload:
            raise TooLargeError(f"{size} bytes are more than the server's max_payload, {self.max_payload}")
        if not self._link.is_connected:
            raise DisconnectedError(f"no connection to {self._options.shown}")
        if header:
            head = f"HPUB {subject} {reply} {len(header)} {size}\r\n".encode()
            self._link.write(b"%b%b%b\r\n" % (head, header, payload))
        else:
            self._link.write(f"PUB {subject} {reply} {size}\r\n".encode() + payload + b"\r\n")

    def call(self, subject: str, payload: bytes, header: bytes, on_reply: OnReply, timeout_s: float = 5.0) -> None:
        """Send a message, and pass its answer to `on_reply`.

        Raises:
            DisconnectedError, TooLargeError: as in `publish`; `on_reply` is then not called.
        """
        inbox = self._calls.enter(subject, on_reply, timeout_s)
        try:
            self.publish(subject, payload, header, inbox)
        except MeshError:
            self._calls.leave(inbox)
            raise

    async def request(
        self, subject: str, payload: bytes = b"", header: bytes = b"", timeout_s: float = 5.0
    ) -> tuple[bytes, bytes]:
        """Send a message and await its answer: header block and payload.

        Raises:
            DisconnectedError, BrokerTimeoutError: no answer came; whether the peer acted is unknown.
            UnavailableError: `subject` has no subscriber.
            UnauthorizedError: this user may not publish to `subject`.
            TooLargeError: as in `publish`.
        """
        future: asyncio.Future[tuple[bytes, bytes]] = self._loop.create_future()

        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result((header, payload))

        self.call(subject, payload, header, answered, timeout_s)
        return await future

    async def collect(
        self, subject: str, payload: bytes, is_last: IsLast, timeout_s: float = 5.0, header: bytes = b""
    ) -> list[tuple[bytes, bytes]]:
        """Send a message and collect its answers, up to the one for which `is_last(header, payload)` is true.

        Raises:
            As `request`.
        """
        collector = Collector(self._loop.create_future(), is_last)
        inbox = self._calls.enter(subject, collector.on_reply, timeout_s, many=True)
        try:
            self.publish(subject, payload, header, inbox)
            await collector.done
        finally:
            self._calls.leave(inbox)
        return collector.found

    # Receiving.

    def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Call `handler` for each message. It must not block; its exceptions are logged."""
        entry = Subscription(self, subject, queue, handler)
        entry.sid = self._link.attach(subject, queue, handler)
        self._subscriptions[entry] = None
        return entry

    def new_inbox(self) -> str:
        """Return a unique subject, for `subscribe`."""
        return f"{self._options.inbox_prefix}.{secrets.token_hex(11)}"

    def _unsubscribe(self, entry: Subscription) -> None:
        if entry.sid:
            self._link.detach(entry.sid)
            entry.sid = 0
            del self._subscriptions[entry]

    # The life of the link.

    async def _open(self) -> None:
        await self._establish(self._link, self._options.connect_timeout_s)
        self._is_open = True
        self.subscribe(self._calls.wildcard, self._calls.heard)

    async def _establish(self, link: NatsClient, timeout_s: float) -> None:
        """Connect `link` within `timeout_s`; nats-py itself would retry for ever, even after a refused password."""
        seen: list[Exception] = []
        refused: asyncio.Future[MeshError] = self._loop.create_future()
        connecting = self._loop.create_task(link.connect(**self._arguments(link, seen, refused)), name="mesh-connect")
        try:
            await asyncio.wait({connecting, refused}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
                self._connected.set()
                return
        except Exception as error:
            raise mapped(error) from error
        finally:
            if not link.is_connected:
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                with contextlib.suppress(Exception):  # nats-py cannot close a link that never connected
                    await link.close()
                link.abort()  # it leaves the socket open too
        if refused.done():
            raise refused.result()
        reason = f": {seen[-1]}" if seen and str(seen[-1]) else ""
        raise DisconnectedError(
            f"cannot reach NATS at {self._options.shown} within {timeout_s:g} s{reason}; "
            "is nats-server running there, with JetStream (-js)?"
        )

    def _arguments(
        self, link: NatsClient, seen: list[Exception], refused: asyncio.Future[MeshError]
    ) -> dict[str, object]:
        async def on_error(error: Exception) -> None:
            seen[:] = [error]
            if not refused.done() and (fault := final_fault(error, self._options.shown)) is not None:
                refused.set_result(fault)
            self._on_error(error)

        async def on_disconnected() -> None:
            if link is self._link and not self._is_closing:
                self._on_lost()

        async def on_reconnected() -> None:
            if link is self._link:
                self._on_found()

        async def on_closed() -> None:
            # Only a link that was connected once is replaced; the caller gets the first connection's failure.
            if link is self._link and self._is_open and not self._is_closing and not self._is_reviving:
                self._reviver = self._loop.create_task(self._revive(), name="mesh-revive")

        options = self._options
        return {
            "servers": list(options.servers),
            "name": options.name,
            "user": options.user,
            "password": options.password,
            "token": options.token,
            "user_credentials": str(options.credentials) if options.credentials else None,
            "nkeys_seed": str(options.nkey_seed) if options.nkey_seed else None,
            "tls": tls_context(options),
            "inbox_prefix": options.inbox_prefix.encode(),
            "ping_interval": CONNECTION_PING_S,
            "max_outstanding_pings": CONNECTION_PINGS,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "error_cb": on_error,
            "disconnected_cb": on_disconnected,
            "reconnected_cb": on_reconnected,
            "closed_cb": on_closed,
        }

    @property
    def _is_reviving(self) -> bool:
        return self._reviver is not None and not self._reviver.done()

    def _on_error(self, error: Exception) -> None:
        """Handle nats-py's error callback. It must neither raise nor wait, or the read loop ends."""
        text = str(error)
        log.debug("nats: %s", text or type(error).__name__, extra={"event": "nats_error"})
        if "permissions violation for publish to" in text:
            # The server only reports the subject, which nats-py lower-cases; the request gets no answer.
            self._calls.fail(
                lambda subject: UnauthorizedError(f"this user may not publish to {subject}"),
                only=lambda subject: f'"{subject.lower()}"' in text,
            )

    def _on_lost(self) -> None:
        self._connected.clear()
        self._link.discard_unsent()
        self._calls.fail(lambda subject: DisconnectedError(f"the connection broke before {subject} answered"))
        self._notify(False)

    def _on_found(self) -> None:
        self._reconnects += 1
        self._link.announce_late()
        self._connected.set()
        self._notify(True)

    def _notify(self, connected: bool) -> None:
        for listener in list(self._listeners):
            try:
                listener(connected)
            except Exception:  # a listener's bug must not end nats-py's reconnect
                log.exception("a connection listener failed", extra={"event": "handler_failed"})

    async def _revive(self) -> None:
        """Open a new link with the same subscriptions, after nats-py gave up."""
        log.warning(
            "NATS closed the connection for good (%s); opening a new one",
            self._link.last_error,
            extra={"event": "nats_closed"},
        )
        wait_s = RECONNECT_WAIT_S
        while not self._is_closing:
            self._link = link = NatsClient(self._options.demands_tls)
            try:
                await self._establish(link, FIRST_CONNECT_S)
            except MeshError as error:
                log.warning("still not connected to NATS: %s", error, extra={"event": "nats_revive_failed"})
                await asyncio.sleep(wait_s)
                wait_s = min(REVIVE_MAX_WAIT_S, wait_s * 2)
            else:
                for entry in self._subscriptions:
                    entry.sid = link.attach(entry.subject, entry.queue, entry.handler)
                self._on_found()
                return

    async def close(self) -> None:
        """Send the data written so far, and close. Open calls fail. Idempotent. A cancellation closes at once."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            if self._reviver is not None:
                self._reviver.cancel()
                await asyncio.gather(self._reviver, return_exceptions=True)
            await self._link.end(CLOSE_S)
        finally:
            self._calls.fail(lambda subject: DisconnectedError(f"the connection was closed before {subject} answered"))
            self._calls.close()


@contextlib.asynccontextmanager
async def connect(options: ConnectOptions) -> AsyncIterator[Connection]:
    """Open a connection while the context is open.

    Raises:
        DisconnectedError: no server answered within `options.connect_timeout_s`.
        UnauthorizedError: the server refused this user.
        ConfigError: a credential or a certificate cannot be read, the server's certificate is not trusted, or the
            traffic to another machine would not be encrypted.
    """
    connection = await open_connection(options)
    try:
        yield connection
    finally:
        await connection.close()


async def open_connection(options: ConnectOptions) -> Connection:
    """Open a connection as `connect` does; the caller closes it."""
    for path in (options.credentials, options.nkey_seed):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path} is not a file; give the path of a NATS credentials file", key="creds")
    check_addresses(options)
    tls_context(options)  # an unreadable file fails here, before any connection is opened
    connection = Connection(options)
    try:
        await connection._open()
    except BaseException:
        await connection.close()
        raise
    return connection
