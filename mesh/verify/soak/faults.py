"""Injects the planned faults: workers are killed, suspended, disconnected; servers are killed.

Some workers are always left undisturbed: a mesh that stands still proves nothing.
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

UNDISTURBED = 2  # workers without a fault at any moment, where there are so many
SLOW_S = 0.1  # added each way by a slow connection
# After a cluster's server is back: until its routes forward the watcher's subscriptions.
ROUTES_S = 1.0


@dataclass
class FaultInjector:
    """Injects faults from `run` until its cancellation; `heal` waits until all of them are over."""

    workers: FaultyWorkers
    servers: Servers
    watcher: Watcher
    history: RunHistory
    clock: Callable[[], float]
    _disturbed: set[int] = field(default_factory=set)  # numbers of the slots with a fault
    _server_is_away: bool = False
    _lasting: set[asyncio.Task[None]] = field(default_factory=set)
    _failure: BaseException | None = None

    async def run(self, faults: Iterator[Fault]) -> None:
        """Inject the faults as planned. A fault that lasts overlaps with the next ones.

        Raises:
            MeshError: a server did not come back.
        """
        for fault in faults:
            await asyncio.sleep(fault.pause_s)
            if self._failure is not None:
                raise self._failure
            task = asyncio.create_task(self._inject(fault), name=f"soak-{fault.kind}")
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

    async def _inject(self, fault: Fault) -> None:
        if fault.kind == "server":
            if not self._server_is_away:
                await self._kill_server(fault)
            return
        slot = self._pick(fault.pick)
        if slot is None:
            return
        self._disturbed.add(slot.number)
        at_s, name = self.clock(), slot.name
        try:
            await self._hit(slot, fault)
        finally:
            self._disturbed.discard(slot.number)
            self.history.struck.append(Struck(at_s, fault.kind, name, self.clock()))

    def _pick(self, pick: int) -> WorkerSlot | None:
        """Return a ready worker without a fault; None: too few would be left."""
        free = [slot for slot in self.workers.slots if slot.number not in self._disturbed and slot.is_ready]
        left = min(UNDISTURBED, len(self.workers.slots) - 1)
        return free[pick % len(free)] if len(free) > left else None

    async def _hit(self, slot: WorkerSlot, fault: Fault) -> None:
        kind: FaultKind = fault.kind
        match kind:
            case "kill":
                self.workers.kill(slot)
            case "stop":
                self.workers.stop(slot)
                await asyncio.sleep(fault.for_s)
                self.workers.wake(slot)
            case "cut":
                slot.proxy.cut()
                await asyncio.sleep(fault.for_s)
                slot.proxy.heal()
            case "slow":
                slot.proxy.delay_s = SLOW_S
                await asyncio.sleep(fault.for_s)
                slot.proxy.heal()
            case "reset":
                slot.proxy.reset()

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
