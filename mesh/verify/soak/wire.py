"""The watcher: hears every publish of a mesh as it comes, also those that JetStream refuses, and writes them down.

A plain subscriber to the subjects of a stream hears each message beside the stream, with its headers and its reply
subject. So what a worker *tried* is seen, not only what became of it. While the server is away the watcher is deaf;
it notes from where to where, and the rules judge nothing by what is missing there. Made by run.
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
NOTE_PAUSE_S = 0.05  # between tries to hear ourselves again after a reconnect


class Watcher:
    """Writes into `history.sent`, `.settled`, `.told`, `.sequences` and `.missed`, from `start` to `close`."""

    def __init__(self, broker: Broker, history: RunHistory, clock: Callable[[], float]) -> None:
        """`clock`: seconds since the run began."""
        self._connection = broker.connection
        self._names = broker.names
        self._history = history
        self._clock = clock
        self._order = 0
        self._heard_s = 0.0  # when the last record came
        self._deaf_from: tuple[int, float] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._inbox = broker.connection.new_inbox()
        self._unlisten: Callable[[], None] | None = None
        self.ended: set[str] = set()  # jobs whose Result was announced, as far as was heard

    def start(self) -> None:
        """Hear from now on."""
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
            (self._inbox, self._heard_ourselves),
        ):
            self._subscriptions.append(self._connection.subscribe(subject, handler))
        self._unlisten = self._connection.listen(self._changed)

    def close(self) -> None:
        """Hear no more."""
        if self._unlisten is not None:
            self._unlisten()
        for subscription in self._subscriptions:
            subscription.close()
        for task in self._tasks:
            task.cancel()

    def deaf(self, from_s: float) -> None:
        """Something happened at `from_s` that may cost messages; until we hear ourselves, and `again` was called."""
        if self._deaf_from is None:
            self._deaf_from = (self._order, min(from_s, self._heard_s or from_s))

    def again(self) -> None:
        """The mesh is whole again, as far as the caller knows."""
        task = asyncio.get_running_loop().create_task(self._listen_for_ourselves(), name="soak-watcher-again")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _changed(self, connected: bool) -> None:
        if connected:
            self.again()
        else:
            self.deaf(self._clock())

    async def _listen_for_ourselves(self) -> None:
        """What we publish now is heard once our subscriptions stand."""
        while self._deaf_from is not None:
            with contextlib.suppress(DisconnectedError):
                self._connection.publish(self._inbox, b"")
            await asyncio.sleep(NOTE_PAUSE_S)

    def _heard_ourselves(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
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
        """The stream's notice of a stored request: its sequence, and whose it is."""
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
    """What a record keeps of an event: what it is, attempt, index, tokens, worker."""
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
    """`_INBOX.<connection>.<call>`: whose inbox it is."""
    return reply.rpartition(b".")[0].decode("utf-8", "replace")
