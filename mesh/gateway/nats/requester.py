"""Whoever waits at the front door for an answer, and whether they still do.

NATS answers a publish that nobody hears with "no responders", so every message that is sent can ask for that. While
nothing is to be sent, the subject beside the requester's own is asked: clients listen for all of their answers with
one wildcard, and ignore what none of their requests expects. Where that subject was never heard (a subscription of
its own), only what is sent can tell. Of a requester in another account nothing does: NATS itself hears for it.

That it is heard shows by no answer at all, which may as well be a slow server, or somebody who listens to everything
(`nats sub '>'`). So a subject that no requester has is asked after it: NATS answers in order, and must say of that one
that nobody listens.
Source: ADR-4 and the server's no-responders status, "503".
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from mesh.broker.transport.connection import Connection
from mesh.errors import MeshError, UnavailableError
from mesh.protocol.timing import REQUESTER_BACK_S, REQUESTER_GONE_S

ASK_S = 0.25  # at most so often it is asked whether anybody hears what is sent
FIRST_LOOK_S = 0.25  # most answers are there by then, and nobody needs to be asked after
LOOK_S = 1.0
ANSWER_S = 0.3  # in which NATS says that nobody listens, if so
PROBE = "mesh-probe"
MIN_TOKENS = 3  # of a reply subject whose neighbour is heard by the same client: `_INBOX.<client>.<request>`


class Requester:
    """One requester. `on_gone` is called once, when nobody waits any more."""

    def __init__(self, connection: Connection, reply: str, on_gone: Callable[[], None]) -> None:
        self._connection = connection
        self._reply = reply
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._asked_s = self._loop.time()  # loop time
        self._missing_s: float | None = None  # since when nobody listens; loop time
        self._reconnects = connection.reconnects
        self._patient_s = 0.0  # until then it may be on its way back; loop time
        tokens = reply.split(".")
        self._beside = ".".join((*tokens[:-1], PROBE))
        self._apart = ".".join((*tokens[:-2], secrets.token_hex(8), PROBE))
        self._is_heard_beside = False
        self._is_over = False
        self._timer = self._loop.call_later(FIRST_LOOK_S, self._look)
        if len(tokens) < MIN_TOKENS:
            self._timer.cancel()

    def send(self, body: bytes, header: bytes = b"") -> None:
        """Send one of several messages.

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
        """Ask no more. Idempotent."""
        self._is_over = True
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        with contextlib.suppress(MeshError):  # without a connection nobody's absence shows
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
                self._timer.cancel()  # it never was heard: that subject tells nothing
            elif is_missing or self._is_heard_beside:
                self._told(sent_s, is_missing)

        def apart(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if isinstance(error, UnavailableError) and not is_missing:
                self._is_heard_beside = True

        self._connection.call(self._beside, b"", b"", beside, timeout_s=ANSWER_S)
        if not self._is_heard_beside:
            self._connection.call(self._apart, b"", b"", apart, timeout_s=ANSWER_S)

    def _told(self, sent_s: float, is_missing: bool) -> None:
        """Whether anybody heard what was sent at `sent_s`; that they did shows by no answer at all."""
        if self._reconnects != self._connection.reconnects:  # the server was away, and the requester may still be
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
