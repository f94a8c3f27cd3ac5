"""Detects that the requester of a front door's answer has gone away.

NATS answers a publish without a subscriber with "no responders", so every message to the requester can show that it
is gone. While there is nothing to send, the front door probes a subject beside the requester's own. Most client
libraries subscribe to all their answers with one wildcard, and ignore messages that no request expects. A requester
with a subscription of its own never receives the probe, so only real messages show its absence. The absence of a
requester in another account never shows, because NATS itself subscribes for it.

A probe that is received gets no answer. But a slow server gives no answer either, and a monitor (`nats sub '>'`)
receives every probe. So a second probe goes to a subject that no requester has. NATS answers in order, and must report
that the second probe has no subscriber.
Source: ADR-4 and the server's no-responders status, "503".
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from mesh.broker.transport.connection import Connection
from mesh.errors import MeshError, UnavailableError
from mesh.protocol.timing import REQUESTER_BACK_S, REQUESTER_GONE_S

ASK_S = 0.25  # the least time between two messages that ask for a "no responders" status
FIRST_LOOK_S = 0.25  # most answers are sent by then, and need no probe
LOOK_S = 1.0  # between probes
ANSWER_S = 0.3  # NATS reports "no responders" within this time
PROBE = "mesh-probe"
MIN_TOKENS = 3  # of a reply subject whose client also receives the probe: `_INBOX.<client>.<request>`


class Requester:
    """One requester. `on_gone` is called once, when the requester is gone."""

    def __init__(self, connection: Connection, reply: str, on_gone: Callable[[], None]) -> None:
        self._connection = connection
        self._reply = reply
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._asked_s = self._loop.time()  # loop time
        self._missing_s: float | None = None  # when the requester was first missed; loop time
        self._reconnects = connection.reconnects
        self._patient_s = 0.0  # until then, the requester may still reconnect; loop time
        tokens = reply.split(".")
        self._beside = ".".join((*tokens[:-1], PROBE))
        self._apart = ".".join((*tokens[:-2], secrets.token_hex(8), PROBE))
        self._is_heard_beside = False
        self._is_over = False
        self._timer = self._loop.call_later(FIRST_LOOK_S, self._look)
        if len(tokens) < MIN_TOKENS:
            self._timer.cancel()

    def send(self, body: bytes, header: bytes = b"") -> None:
        """Send one message of a streamed answer.

        Raises:
            DisconnectedError, TooLargeError: it was not sent.
        """
        now_s = self._loop.time()
        if now_s - self._asked_s < ASK_S:
            self._connection.publish(self._reply, body, header)
            return
        self._asked_s = now_s
        self._ask(self._reply, body, header)

    def close(self) -> None:
        """Stop probing. Idempotent."""
        self._is_over = True
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        with contextlib.suppress(MeshError):  # without a connection, a probe shows nothing
            self._ask_beside()

    def _ask(self, subject: str, body: bytes, header: bytes) -> None:
        sent_s = self._loop.time()

        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            self._told(sent_s, is_missing=isinstance(error, UnavailableError))

        self._connection.call(subject, body, header, answered, timeout_s=ANSWER_S)

    def _ask_beside(self) -> None:
        sent_s, is_missing = self._loop.time(), False

        def beside(error: MeshError | None, header: bytes, payload: bytes) -> None:
            nonlocal is_missing
            is_missing = isinstance(error, UnavailableError)
            if is_missing and not self._is_heard_beside:
                self._timer.cancel()  # the requester never received a probe, so probes show nothing
            elif is_missing or self._is_heard_beside:
                self._told(sent_s, is_missing)

        def apart(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if isinstance(error, UnavailableError) and not is_missing:
                self._is_heard_beside = True

        self._connection.call(self._beside, b"", b"", beside, timeout_s=ANSWER_S)
        if not self._is_heard_beside:
            self._connection.call(self._apart, b"", b"", apart, timeout_s=ANSWER_S)

    def _told(self, sent_s: float, is_missing: bool) -> None:
        """Record whether a message sent at `sent_s` had a subscriber; call `on_gone` after REQUESTER_GONE_S without."""
        if self._reconnects != self._connection.reconnects:  # the server was away: the requester may reconnect later
            self._reconnects = self._connection.reconnects
            self._patient_s = self._loop.time() + REQUESTER_BACK_S
        if not is_missing:
            if self._missing_s is not None and sent_s > self._missing_s:
                self._missing_s = None
        elif self._missing_s is None or sent_s < self._patient_s:
            self._missing_s = sent_s
        elif sent_s - self._missing_s >= REQUESTER_GONE_S and not self._is_over:
            self.close()
            self._on_gone()
