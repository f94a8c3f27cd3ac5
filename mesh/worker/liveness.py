"""Keeps this worker's liveness record, and announces its leases so that peers can hand them back if it dies.

A worker whose connection broke may be declared dead, and lose its jobs, before it reconnects. So it is confirmed
only while the server accepts its record (see broker/stores/liveness), and stores no Result until then. Its events
need no such check, because the journal refuses them.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

import msgspec

from mesh.broker.broker import Broker
from mesh.errors import ConfigError, DisconnectedError, MeshError, SequenceError
from mesh.protocol import codec
from mesh.protocol.messages import LivenessRecord, Pong
from mesh.protocol.timing import LEASES_ANNOUNCED_S, LIVENESS_RENEW_S, RETRY_S

log = logging.getLogger("mesh.worker")

LIST = b"leases"  # the body of a ping that asks for all leases
BYE = b"bye"


class Liveness:
    """The liveness of one worker. `begin`, then `run` as a side task, and `leave` at the end."""

    def __init__(
        self,
        broker: Broker,
        worker: str,
        on_dead: Callable[[], None],
        on_confirmed: Callable[[], None],
    ) -> None:
        """`on_dead` is called when this worker learns that it was declared dead and its jobs were handed back.

        `on_confirmed` is called when the server has confirmed it again.
        """
        self._connection = broker.connection
        self._names = broker.names
        self._liveness = broker.liveness
        self._clock = broker.clock
        self._worker = worker
        self._on_dead = on_dead
        self._session = ""
        self._born_unix_ms = broker.clock.server_unix_ms()
        self._last = 0
        self._renewed_s = 0.0  # monotonic
        self._memory_s = 0.0  # how long the stream keeps a record at least
        self._doubts = 0  # changes of the connection so far
        self._confirmed = asyncio.Event()
        self._on_confirmed = on_confirmed
        self._poke = asyncio.Event()
        self._leases: dict[str, None] = {}  # acknowledgement subjects, in the order of delivery
        self._watched_until_s = 0.0
        self._subscription = broker.connection.subscribe(broker.names.system("ping", worker), self._pinged)

    @property
    def is_confirmed(self) -> bool:
        """Whether the server has confirmed this worker since the connection was last lost."""
        return self._confirmed.is_set()

    async def begin(self, memory_s: float) -> None:
        """Write the first record of this session, which ends that of an earlier worker of the same name.

        `memory_s`: how long the stream keeps records, in seconds.

        Raises:
            BrokerError: NATS did not answer.
        """
        if not self._session:  # the server's clock has been measured by now
            self._born_unix_ms = self._clock.server_unix_ms()
        self._memory_s = memory_s
        self._session = secrets.token_hex(8)
        doubts = self._doubts
        self._last = await self._liveness.write(self._record(), None)
        self._note_confirmed(doubts)
        with contextlib.suppress(DisconnectedError):
            self._connection.publish(self._names.system("hello"), self._worker.encode())

    def disturbed(self) -> None:
        """The connection was lost or restored: the worker is unconfirmed until the server accepts its record."""
        self._doubts += 1
        self._confirmed.clear()
        self._poke.set()

    async def run(self, period_s: float) -> None:
        """Side task: renew the record every `period_s`, and at once after the connection was lost.

        Raises:
            ConfigError: another process took this worker's name.
        """
        period_s = min(period_s, LIVENESS_RENEW_S)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await self._poke.wait()
            self._poke.clear()
            try:
                await self._renew()
            except ConfigError:
                raise
            except MeshError as error:  # includes a full store, which is no BrokerError and also passes
                log.debug("the liveness record was not renewed: %s", error)
                await asyncio.sleep(RETRY_S)
                self._poke.set()

    def leave(self) -> None:
        """Tell the peers to stop watching this worker."""
        self._subscription.close()
        with contextlib.suppress(DisconnectedError):
            self._connection.publish(self._names.leases(self._worker), BYE)

    def took(self, ack_subject: str) -> None:
        """Add a delivery to the leases, and announce it."""
        self._leases[ack_subject] = None
        self._announce(b"+", ack_subject)

    def gave(self, ack_subject: str) -> None:
        """Remove a delivery from the leases, and announce it."""
        self._leases.pop(ack_subject, None)
        self._announce(b"-", ack_subject)

    def _announce(self, mark: bytes, ack_subject: str) -> None:
        if self._clock.monotonic_s() < self._watched_until_s:
            with contextlib.suppress(DisconnectedError):
                self._connection.publish(self._names.leases(self._worker), mark + ack_subject.encode())

    def _pinged(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        to = reply.decode("utf-8", "replace")
        if not self._names.may_answer(to):
            return
        self._watched_until_s = self._clock.monotonic_s() + LEASES_ANNOUNCED_S
        if payload == LIST:
            answer = msgspec.json.encode(list(self._leases))
        else:
            answer = codec.encode(Pong(born_unix_ms=self._born_unix_ms))
        with contextlib.suppress(DisconnectedError):
            self._connection.publish(to, answer)

    async def _renew(self) -> None:
        doubts = self._doubts
        try:
            self._last = await self._liveness.write(self._record(), self._last)
        except SequenceError:
            if await self._is_dead():
                self._confirmed.clear()
                log.warning(
                    "this worker was taken for dead while it was away; its jobs went to others",
                    extra={"event": "declared_dead"},
                )
                self._on_dead()
                await self.begin(self._memory_s)
                return
            self._poke.set()  # renew at once, with the new fence
        else:
            self._note_confirmed(doubts)

    async def _is_dead(self) -> bool:
        """Whether another process overwrote our record. Sets the fence to the newest record."""
        entry = await self._liveness.last(self._worker)
        if entry is None:  # the stream dropped it; a record of our death would be kept for longer
            self._last = 0
            return self._clock.monotonic_s() - self._renewed_s > self._memory_s
        self._last = entry.sequence
        if entry.record is not None and entry.record.is_alive and entry.record.session != self._session:
            self._on_dead()
            raise ConfigError(
                f"another worker is called {self._worker} now; give each its own --worker-id", key="worker-id"
            )
        return entry.record != self._record()

    def _note_confirmed(self, doubts: int) -> None:
        self._renewed_s = self._clock.monotonic_s()
        if doubts == self._doubts and not self._confirmed.is_set():
            self._confirmed.set()
            self._on_confirmed()

    def _record(self) -> LivenessRecord:
        return LivenessRecord(worker=self._worker, session=self._session, is_alive=True)
