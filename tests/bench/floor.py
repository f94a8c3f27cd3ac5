"""The floor: the least code that queues, streams and stores with stock nats-py, and nothing that makes it safe.

A work queue (publish + ack), a message per token to the asking client's one inbox, the result under its key,
an unconfirmed ack. No fencing, no leases, no attempts, no journal: what is lost here is lost.

Two variants, chosen by the subject: `token` publishes each token, `turn` sends all tokens that one turn of the
worker's loop made for one client as one message.
"""

import asyncio
import itertools
import secrets
import time
from typing import Literal

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy

from mesh.engines.base import Engine, Work
from mesh.protocol.messages import Request
from tests.bench.stream import Stream

Variant = Literal["token", "turn"]

STREAM, CONSUMER, BUCKET = "FLOOR", "workers", "floor"
_NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
_ALL = b'{"batch":10000000,"expires":3600000000000}'  # one pull for the whole run


class Piece(msgspec.Struct, array_like=True):
    """What is sent to the client: some tokens, or the end with the whole text."""

    job: str
    text: str
    token_ids: list[int]
    is_last: bool = False


_encode = msgspec.json.Encoder().encode
_decode_piece = msgspec.json.Decoder(Piece).decode
_decode_pieces = msgspec.json.Decoder(list[Piece]).decode
_decode_request = msgspec.json.Decoder(Request).decode


async def connect(url: str) -> Nats:
    """A connection of nats-py as it comes; an async context that closes it."""
    connection = Nats()
    await connection.connect(url)
    return connection


async def prepare(url: str) -> None:
    """Declare the queue and the bucket."""
    async with await connect(url) as connection:
        context = connection.jetstream()
        await context.add_stream(name=STREAM, subjects=["floor.req.>"], retention=RetentionPolicy.WORK_QUEUE)
        config = ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=100_000)
        await context.add_consumer(STREAM, config)
        await context.create_key_value(bucket=BUCKET)


class FloorClient:
    """The asking end."""

    def __init__(self, connection: Nats) -> None:
        self._connection = connection
        self._context = connection.jetstream()
        self._inbox = connection.new_inbox()
        self._open: dict[str, tuple[Stream, asyncio.Future[None]]] = {}
        self._numbers = itertools.count()
        self._prefix = secrets.token_hex(8)

    async def start(self) -> None:
        await self._connection.subscribe(self._inbox + ".*", cb=self._heard)

    async def run(self, request: Request, variant: Variant = "token") -> Stream:
        """Submit, and return the answer once all of it is here."""
        job = f"{self._prefix}{next(self._numbers):x}"
        stream = Stream(job, time.monotonic())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[job] = (stream, done)
        await self._context.publish(f"floor.req.{variant}.{self._inbox}.{job}", _encode(request))
        await done
        return stream

    async def _heard(self, message: Msg) -> None:
        if message.subject.endswith(".turn"):
            for piece in _decode_pieces(message.data):
                self._file(piece)
        else:
            self._file(_decode_piece(message.data))

    def _file(self, piece: Piece) -> None:
        stream, done = self._open[piece.job]
        if piece.is_last:
            del self._open[piece.job]
            stream.result_text = piece.text
            done.set_result(None)
        else:
            stream.add(piece.text, piece.token_ids)


class FloorWorker:
    """The answering end."""

    def __init__(self, connection: Nats, engine: Engine) -> None:
        self._connection = connection
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, list[Piece]] = {}  # of this turn, by inbox
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        self._bucket = await self._connection.jetstream().key_value(BUCKET)
        inbox = self._connection.new_inbox()
        await self._connection.subscribe(inbox, cb=self._delivered)
        await self._connection.publish(_NEXT, _ALL, reply=inbox)

    async def _delivered(self, message: Msg) -> None:
        if not message.headers:  # a status of the pull has one
            self._keep(self._loop.create_task(self._run(message)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, message: Msg) -> None:
        _, _, variant, *inbox, job = message.subject.split(".")
        request = _decode_request(message.data)
        client = ".".join(inbox)
        text = ""
        async for chunk in self._engine.generate(Work(job, request, 0)):
            text += chunk.text
            if request.stream:
                await self._send(variant, client, Piece(job, chunk.text, list(chunk.token_ids)))
        await self._send(variant, client, Piece(job, text, [], True))
        await self._bucket.put(job, text.encode())
        await message.ack()

    async def _send(self, variant: str, client: str, piece: Piece) -> None:
        if variant == "token":
            await self._connection.publish(f"{client}.{piece.job}", _encode(piece))
            return
        if not self._waiting:
            self._loop.call_soon(self._turn_over)
        self._waiting.setdefault(client, []).append(piece)

    def _turn_over(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for client, pieces in waiting.items():
            self._keep(self._loop.create_task(self._connection.publish(f"{client}.turn", _encode(pieces))))
