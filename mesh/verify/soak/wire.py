"""The watcher: records every publish of a mesh, also those that JetStream refuses.

A plain subscriber to a stream's subjects gets each message with its headers and reply subject, independently of the
stream. So the watcher sees every publish that a worker tries, stored or not. While the server is away it misses
messages. It records that span, and no rule depends on records that are absent there.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Subscription
from mesh.errors import DisconnectedError, ProtocolError
from mesh.protocol import codec, headers
from mesh.protocol.messages import Delta, Event, Result, Started
from mesh.verify.soak.history import CancelTold, Missed, RunHistory, Sent, Settled, Verb, Where

_FENCE = "Nats-Expected-Last-Subject-Sequence"
_VERBS: dict[bytes, Verb] = {b"": "ack", b"+ACK": "ack", b"-NAK": "nak", b"+TERM": "term"}
NOTE_PAUSE_S = 0.05  # between messages to itself, after a reconnect


class Watcher:
    """Writes into `history.sent`, `.settled`, `.told`, `.sequences` and `.missed`, from `start` to `close`."""

    def __init__(self, broker: Broker, history: RunHistory, clock: Callable[[], float]) -> None:
        """Create a watcher. `clock`: seconds since the run began."""
        self._connection = broker.connection
        self._names = broker.names
        self._history = history
        self._clock = clock
        self._order = 0
        self._heard_s = 0.0  # time of the last record
        self._deaf_from: tuple[int, float] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._inbox = broker.connection.new_inbox()
        self._unlisten: Callable[[], None] | None = None
        self.ended: set[str] = set()  # jobs whose announced Result was received

    def start(self) -> None:
        """Subscribe."""
        names = self._names
        stream = names.requests_stream
        for subject, handler in (
            ("$JS.ACK.>", self._heard_ack),
            (f"$JS.API.STREAM.MSG.DELETE.{stream}", self._heard_removal),
            (f"$KV.{names.results_bucket}.>", self._heard_result),
            (f"{names.ns}.out.>", self._heard_event),
            (names.system("attempts", ">"), self._heard_attempt),
            (names.system("cancel", ">"), self._heard_cancel),
            (names.system("queued", ">"), self._heard_queued),
            (self._inbox, self._received_own),
        ):
            self._subscriptions.append(self._connection.subscribe(subject, handler))
        self._unlisten = self._connection.listen(self._changed)

    def close(self) -> None:
        """End the subscriptions."""
        if self._unlisten is not None:
            self._unlisten()
        for subscription in self._subscriptions:
            subscription.close()
        for task in self._tasks:
            task.cancel()

    def deaf(self, from_s: float) -> None:
        """Begin a span of missed messages at `from_s`. It ends after `again`, when the watcher gets its own message."""
        if self._deaf_from is None:
            self._deaf_from = (self._order, min(from_s, self._heard_s or from_s))

    def again(self) -> None:
        """Start to send messages to itself; the first one that arrives ends the span."""
        task = asyncio.get_running_loop().create_task(self._await_own_message(), name="soak-watcher-again")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _changed(self, connected: bool) -> None:
        if connected:
            self.again()
        else:
            self.deaf(self._clock())

    async def _await_own_message(self) -> None:
        """Publish to the watcher's own inbox until a message arrives: then its subscriptions are active."""
        while self._deaf_from is not None:
            with contextlib.suppress(DisconnectedError):
                self._connection.publish(self._inbox, b"")
            await asyncio.sleep(NOTE_PAUSE_S)

    def _received_own(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        if self._deaf_from is not None:
            order, from_s = self._deaf_from
            self._deaf_from = None
            self._history.missed.append(Missed(order, self._next(), from_s, self._clock()))

    def _next(self) -> int:
        self._order += 1
        self._heard_s = self._clock()
        return self._order

    def _heard_ack(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        verb = _VERBS.get(payload[:5].split(b" ")[0])
        if verb is None:
            return  # a renewal
        parts = subject.decode("ascii", "replace").split(".")
        if len(parts) >= 11:  # the long form, with domain and account (ADR-15)
            parts = parts[:2] + parts[4:11]
        if len(parts) == 9 and parts[2] == self._names.requests_stream:
            self._settled(int(parts[5]), verb, reply)

    def _heard_removal(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        with contextlib.suppress(msgspec.MsgspecError, TypeError, KeyError):
            self._settled(int(msgspec.json.decode(payload)["seq"]), "remove", reply)

    def _settled(self, sequence: int, verb: Verb, reply: bytes) -> None:
        order = self._next()
        self._history.settled.append(Settled(self._heard_s, order, sequence, verb, bool(reply), _sender(reply)))

    def _heard_result(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        try:
            event: Event | None = codec.decode_result(payload)
        except ProtocolError:
            event = None
        self._sent("results", subject, reply, header, event)

    def _heard_event(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        event = _event(payload)
        self._sent("events", subject, reply, header, event)
        if isinstance(event, Result):
            self.ended.add(event.id)

    def _heard_attempt(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        self._sent("attempts", subject, reply, header, _event(payload))

    def _heard_cancel(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        self._next()
        self._history.told.append(CancelTold(self._heard_s, _job(subject)))

    def _heard_queued(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """Take the stream's notice of a stored request: its sequence and its job."""
        fields = headers.parse(header)
        sequence, job = fields.get("Nats-Sequence", ""), fields.get("Nats-Msg-Id", "").partition(".")[2]
        if sequence.isdigit() and job:
            self._history.sequences[int(sequence)] = job

    def _sent(self, to: Where, subject: bytes, reply: bytes, header: bytes, event: Event | None) -> None:
        order = self._next()
        fence = headers.parse(header).get(_FENCE, "")
        expected = int(fence) if fence.isdigit() else None
        what, attempt, index, tokens, worker = _read(event)
        self._history.sent.append(
            Sent(
                at_s=self._heard_s,
                order=order,
                to=to,
                job=_job(subject),
                what=what,
                expected=expected,
                sender=_sender(reply),
                attempt=attempt,
                index=index,
                tokens=tokens,
                worker=worker,
            )
        )


def _read(event: Event | None) -> tuple[str, int, int, int, str]:
    """Return the fields of a record: kind of event, attempt, index, tokens, worker."""
    match event:
        case Started():
            return "started", event.attempt, event.index, 0, event.worker
        case Delta():
            return "delta", event.attempt, event.index, len(event.token_ids), ""
        case Result():
            return "result", event.attempts, 0, event.usage.completion_tokens, event.worker
        case None:
            return "?", 0, 0, 0, ""


def _event(payload: bytes) -> Event | None:
    try:
        return codec.decode_event(payload)
    except ProtocolError:
        return None


def _job(subject: bytes) -> str:
    return subject.rpartition(b".")[2].decode("utf-8", "replace")


def _sender(reply: bytes) -> str:
    """Return the connection's part of a reply subject `_INBOX.<connection>.<call>`."""
    return reply.rpartition(b".")[0].decode("utf-8", "replace")
