"""The hands that strike: workers killed, suspended, cut off; servers killed. What to do comes from plan.

Never so many at once that nobody is left to work: a mesh that stands still proves nothing. Made by run.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mesh.verify.soak.history import FaultKind, RunHistory, Struck
from mesh.verify.soak.plan import Fault
from mesh.verify.soak.servers import Servers
from mesh.verify.soak.wire import Watcher
from mesh.verify.soak.workers import FaultyWorkers, WorkerSlot

log = logging.getLogger("mesh.verify")

UNDISTURBED = 2  # workers that are left alone at any moment, where there are so many
SLOW_S = 0.1  # added each way by a slow connection
# After a server of a cluster is back, until its routes pass on what the watcher subscribed to.
ROUTES_S = 1.0


@dataclass
class Hands:
    """Strikes from `run` until it is cancelled; `heal` undoes what still lasts."""

    workers: FaultyWorkers
    servers: Servers
    watcher: Watcher
    history: RunHistory
    clock: Callable[[], float]
    _disturbed: set[int] = field(default_factory=set)  # numbers of places
    _server_is_away: bool = False
    _lasting: set[asyncio.Task[None]] = field(default_factory=set)
    _failure: BaseException | None = None

    async def run(self, faults: Iterator[Fault]) -> None:
        """Strike as planned. Whatever lasts goes on beside the next.

        Raises:
            MeshError: a server did not come back.
        """
        for fault in faults:
            await asyncio.sleep(fault.pause_s)
            if self._failure is not None:
                raise self._failure
            task = asyncio.create_task(self._strike(fault), name=f"soak-{fault.kind}")
            self._lasting.add(task)
            task.add_done_callback(self._over)

    async def heal(self) -> None:
        """Return when every fault is over.

        Raises:
            MeshError: a server did not come back.
        """
        if self._lasting:
            await asyncio.wait(self._lasting)
        if self._failure is not None:
            raise self._failure

    def _over(self, task: asyncio.Task[None]) -> None:
        self._lasting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    async def _strike(self, fault: Fault) -> None:
        if fault.kind == "server":
            if not self._server_is_away:
                await self._kill_server(fault)
            return
        place = self._pick(fault.pick)
        if place is None:
            return
        self._disturbed.add(place.number)
        at_s, name = self.clock(), place.name
        try:
            await self._hit(place, fault)
        finally:
            self._disturbed.discard(place.number)
            self.history.struck.append(Struck(at_s, fault.kind, name, self.clock()))

    def _pick(self, pick: int) -> WorkerSlot | None:
        """A worker that works and is not disturbed; None if too few would be left."""
        free = [place for place in self.workers.places if place.number not in self._disturbed and place.is_ready]
        left = min(UNDISTURBED, len(self.workers.places) - 1)
        return free[pick % len(free)] if len(free) > left else None

    async def _hit(self, place: WorkerSlot, fault: Fault) -> None:
        kind: FaultKind = fault.kind
        match kind:
            case "kill":
                self.workers.kill(place)
            case "stop":
                self.workers.stop(place)
                await asyncio.sleep(fault.for_s)
                self.workers.wake(place)
            case "cut":
                place.proxy.cut()
                await asyncio.sleep(fault.for_s)
                place.proxy.heal()
            case "slow":
                place.proxy.delay_s = SLOW_S
                await asyncio.sleep(fault.for_s)
                place.proxy.heal()
            case "reset":
                place.proxy.reset()

    async def _kill_server(self, fault: Fault) -> None:
        self._server_is_away = True
        server = self.servers.all[fault.pick % len(self.servers.all)]
        at_s = self.clock()
        self.watcher.deaf(at_s)
        try:
            await self.servers.kill(server)
            await asyncio.sleep(fault.for_s)
            await self.servers.revive(server)
            if len(self.servers.all) > 1:
                await asyncio.sleep(ROUTES_S)
        finally:
            self._server_is_away = False
            self.watcher.again()
            self.history.struck.append(Struck(at_s, "server", server.name, self.clock()))
