"""Publishes a worker's presence, and chooses the lanes it owns among the workers it sees."""

import os
import socket
from dataclasses import dataclass
from typing import Literal

import mesh
from mesh.broker.broker import Broker
from mesh.engines.base import EngineInfo
from mesh.errors import BrokerError, DisconnectedError
from mesh.policies.affinity import owned_lanes
from mesh.protocol.messages import Presence
from mesh.protocol.version import PROTOCOL

# Seconds between reads for each worker that was seen, so that the total of reads grows only linearly with the workers.
# With up to twenty workers, every beat reads.
LOOK_EACH_S = 0.1

State = Literal["starting", "ready", "draining"]


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """The part of a presence that changes from beat to beat."""

    state: State
    running: int
    finished: int
    tokens: int


class PresenceBoard:
    """Publishes one worker's presence, and reads the others'."""

    def __init__(self, broker: Broker, worker: str, model: str, info: EngineInfo, lanes: int) -> None:
        self._store = broker.workers
        self._clock = broker.clock
        self._worker = worker
        self._model = model
        self._info = info
        self._lanes = lanes
        self._started_unix_ms = self._clock.wall_unix_ms()
        self._look_s = float("-inf")  # no look before; monotonic
        self.owned: frozenset[int] = frozenset(range(lanes))

    def beat(self, load: WorkerLoad, capacity: int) -> None:
        """Publish this worker's presence. A beat that cannot be sent is skipped; the next one replaces it."""
        presence = Presence(
            worker=self._worker,
            model=self._model,
            state=load.state,
            engine=self._info.name,
            engine_version=self._info.version,
            version=mesh.__version__,
            protocol=str(PROTOCOL),
            host=socket.gethostname(),
            pid=os.getpid(),
            capacity=capacity,
            running=load.running,
            lanes=sorted(self.owned),
            max_model_len=self._info.max_model_len,
            finished=load.finished,
            tokens=load.tokens,
            started_unix_ms=self._started_unix_ms,
            beat_unix_ms=self._clock.wall_unix_ms(),
        )
        try:
            self._store.put(presence)
        except DisconnectedError:
            return

    async def look(self) -> None:
        """Read the other workers of this model, and share the lanes with them; called with every beat.

        With many workers, only some calls read. Meanwhile all workers pull a lane whose owner is gone.
        """
        if self._clock.monotonic_s() < self._look_s:
            return
        try:
            everyone = await self._store.all()
        except BrokerError:
            return  # keep the previous lanes: ownership is only a preference
        self._look_s = self._clock.monotonic_s() + LOOK_EACH_S * len(everyone)
        peers = [each.worker for each in everyone if each.model == self._model and each.state == "ready"]
        self.owned = frozenset(owned_lanes(self._worker, peers, self._lanes))

    def leave(self) -> None:
        """Remove this worker's presence."""
        try:
            self._store.remove(self._worker)
        except DisconnectedError:
            return
