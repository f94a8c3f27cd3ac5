"""Hands a dead worker's jobs back at once, before their leases end.

NATS reports within a millisecond that a worker's ping subject has no subscriber, as after its process was killed.
Each process that notices writes the death into the worker's record, and the server accepts only the first. That
process hands back the leases that the worker had announced. A worker that was only disconnected finds its record
changed, and drops its jobs (see worker/liveness). A suspended worker, or one whose machine vanished, keeps its
connection: its leases have to run out.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

import msgspec

from mesh.broker.broker import Broker
from mesh.broker.stores.pulls import Leases
from mesh.broker.transport.connection import Subscription
from mesh.errors import DisconnectedError, MeshError, SequenceError, UnavailableError
from mesh.policies.peers import watched_peers
from mesh.protocol.messages import LivenessRecord
from mesh.protocol.subjects import is_token
from mesh.protocol.timing import LEASES_ANNOUNCED_S, LIVENESS_RENEW_S, PEER_PATIENCE_S, PEER_PING_S
from mesh.reconcile.suspicion import Suspicion, Verdict
from mesh.worker.liveness import BYE, LIST

log = logging.getLogger("mesh.reconcile")

LOOK_S = 2.0  # between reads of the presences
ABSENT_S = 60.0  # a worker that is no longer seen is watched for so long
REMEMBERED = 1000  # declared deaths
STEADY_S = 2.0  # our connection must be up for so long: after a server's restart, others reconnect later


@dataclass(slots=True, eq=False)
class _Peer:
    """A worker that this process watches."""

    name: str
    subscription: Subscription | None = None
    suspicion: Suspicion = field(default_factory=Suspicion)
    burial: asyncio.Task[None] | None = None


class FailureDetector:
    """Watches workers from one process, until `close`."""

    def __init__(self, broker: Broker, host: str) -> None:
        """`host`: the name of a worker, or of another process, which then watches all workers."""
        self._connection = broker.connection
        self._names = broker.names
        self._host = host
        self._liveness = broker.liveness
        self._leases = Leases(broker.connection)
        self._presence = broker.workers
        self._peers: dict[str, _Peer] = {}
        self._loop = asyncio.get_running_loop()
        self._steady_from_s = self._loop.time()
        self._present: dict[str, float] = {}  # the workers seen, and when last (loop time)
        self._buried: dict[str, None] = {}  # by us, oldest first
        self._unlisten = broker.connection.listen(self._connection_changed)
        self._subscription = broker.connection.subscribe(broker.names.system("hello"), self._heard_hello)
        self._tasks = [
            asyncio.create_task(self._look(), name="mesh-failure-detector-look"),
            asyncio.create_task(self._watch(), name="mesh-failure-detector-watch"),
        ]

    async def close(self) -> None:
        """Stop watching."""
        self._unlisten()
        self._subscription.close()
        burials = [peer.burial for peer in self._peers.values() if peer.burial is not None]
        for task in (*self._tasks, *burials):
            task.cancel()
        await asyncio.gather(*self._tasks, *burials, return_exceptions=True)
        for name in list(self._peers):
            self._forget(name)

    def _connection_changed(self, connected: bool) -> None:
        self._steady_from_s = self._loop.time() + STEADY_S
        for peer in self._peers.values():
            peer.suspicion.interrupted()

    def _heard_hello(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        name = payload.decode("utf-8", "replace")
        if is_token(name):
            self._present[name] = self._loop.time()  # its presence may not be seen yet
            self._choose()

    async def _look(self) -> None:
        """Side task: read the presences, and choose the peers."""
        while True:
            with contextlib.suppress(MeshError):  # on an error, keep the current peers
                now_s = self._loop.time()
                self._present |= dict.fromkeys((each.worker for each in await self._presence.all()), now_s)
                # A suspended worker is not seen for a while, and may die when it wakes up.
                self._present = {name: at_s for name, at_s in self._present.items() if at_s > now_s - ABSENT_S}
                self._choose()
            await asyncio.sleep(LOOK_S)

    def _choose(self) -> None:
        chosen = set(watched_peers(self._host, self._present))
        for name in set(self._peers) - chosen:
            if self._peers[name].burial is None:
                self._forget(name)
        for name in chosen - set(self._peers):
            self._peers[name] = self._take_on(name)

    def _take_on(self, name: str) -> _Peer:
        peer = _Peer(name)

        def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            self._announced(peer, payload)

        peer.subscription = self._connection.subscribe(self._names.leases(name), heard)
        self._ping(peer)
        return peer

    def _forget(self, name: str) -> None:
        self._present.pop(name, None)
        peer = self._peers.pop(name, None)
        if peer is not None and peer.subscription is not None:
            peer.subscription.close()

    def _announced(self, peer: _Peer, payload: bytes) -> None:
        if payload == BYE:
            self._forget(peer.name)
        elif payload[:1] == b"+":
            peer.suspicion.leases[payload[1:].decode()] = None
        else:
            peer.suspicion.leases.pop(payload[1:].decode(), None)

    async def _watch(self) -> None:
        while True:
            slept_from_s = self._loop.time()
            await asyncio.sleep(PEER_PING_S)
            if self._loop.time() - slept_from_s > LEASES_ANNOUNCED_S / 2:  # suspended: announcements were missed
                self._connection_changed(True)
            if self._connection.is_connected and self._loop.time() >= self._steady_from_s:
                for peer in list(self._peers.values()):
                    if peer.burial is None:
                        self._ping(peer)

    def _ping(self, peer: _Peer) -> None:
        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if error is None and payload[:1] == b"[":
                peer.suspicion.listed(msgspec.json.decode(payload, type=list[str]))
            elif not isinstance(error, UnavailableError):
                peer.suspicion.cleared()
            elif peer.burial is None and self._peers.get(peer.name) is peer and self._suspects(peer) != "alive":
                peer.burial = asyncio.create_task(self._bury(peer), name=f"mesh-bury-{peer.name}")

        subject = self._names.system("ping", peer.name)
        with contextlib.suppress(DisconnectedError):
            self._connection.call(subject, b"" if peer.suspicion.is_known else LIST, b"", answered, timeout_s=1.0)

    def _suspects(self, peer: _Peer) -> Verdict:
        """Record a ping without a subscriber, and decide."""
        return peer.suspicion.unheard(self._loop.time(), self._steady_from_s, self._patience_s(peer))

    def _patience_s(self, peer: _Peer) -> float:
        """Return the seconds between the two pings without a subscriber that declare a peer dead.

        Perhaps only this process cannot reach a peer that survived an earlier declaration. Such a peer gets time to
        renew its record, which then refuses this declaration.
        """
        return PEER_PATIENCE_S if peer.name not in self._buried else LIVENESS_RENEW_S + 2 * PEER_PATIENCE_S

    async def _bury(self, peer: _Peer) -> None:
        """Declare a peer dead and hand its jobs back, if the next ping has no subscriber and the server agrees."""
        try:
            entry = await self._liveness.last(peer.name)
            if not await self._is_gone(peer):
                peer.burial = None
                return
            if entry is None or entry.record is None or entry.record.is_alive:
                death = LivenessRecord(worker=peer.name, session="", is_alive=False, by=self._host)
                await self._liveness.write(death, entry.sequence if entry is not None else 0)
                for ack_subject in peer.suspicion.leases:
                    self._leases.hand_back(ack_subject)
                self._presence.remove(peer.name)
                self._buried[peer.name] = None
                while len(self._buried) > REMEMBERED:
                    del self._buried[next(iter(self._buried))]
                log.warning(
                    "worker %s is gone; %d jobs handed back",
                    peer.name,
                    len(peer.suspicion.leases),
                    extra={"event": "worker_buried"},
                )
        except SequenceError:
            pass  # the peer is alive, or another process was faster
        except MeshError as error:
            log.debug("worker %s may be gone: %s", peer.name, error)
        self._forget(peer.name)

    async def _is_gone(self, peer: _Peer) -> bool:
        await asyncio.sleep(self._patience_s(peer))
        try:
            await self._connection.request(self._names.system("ping", peer.name), timeout_s=1.0)
        except UnavailableError:
            return self._suspects(peer) == "gone"
        except MeshError:
            pass  # a timeout does not prove that there is no subscriber
        peer.suspicion.cleared()
        return False
