"""The workers of a soak: they are killed and suspended, and started again at once when they die.

Each slot has its own proxy to NATS. Each process in a slot has its own name, `w<slot>-<number>`, which identifies it in
the history.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.engines.simulator.engine import EXIT_CODE
from mesh.errors import EngineDeadError
from mesh.hosting.supervisor import Member, Supervisor
from mesh.verify.soak.history import Died, RunHistory
from mesh.verify.soak.proxy import Proxy

READY_S = 30.0
END_S = 10.0  # for a worker to drain; then it is killed
WORKER = (sys.executable, "-m", "mesh", "worker")
MAX_UNREADY_DEATHS = 10  # in a row, in one slot; then the soak fails


@dataclass
class WorkerSlot:
    """One slot: its proxy, and the faults of its current process."""

    member: Member
    proxy: Proxy
    name: str = ""
    unready_deaths: int = 0
    is_doomed: bool = False  # killed by the soak
    is_stopped: bool = False

    @property
    def number(self) -> int:
        return self.member.number

    @property
    def is_ready(self) -> bool:
        return self.member.is_ready


class FaultyWorkers:
    """The workers of one soak: `start`, then any faults on the slots, then `close`."""

    def __init__(
        self,
        proxies: Sequence[Proxy],
        command: Sequence[str],
        options: Sequence[str],
        log: Path,
        history: RunHistory,
        clock: Callable[[], float],
    ) -> None:
        """Create the slots. A worker's command line: `command`, its address and name, `options`. It logs to `log`."""
        self._supervisor = Supervisor(len(proxies), self._argv, self._died, log_file=log, is_merciless=True)
        self.slots = [
            WorkerSlot(member, proxy) for member, proxy in zip(self._supervisor.members, proxies, strict=True)
        ]
        self._command = tuple(command)
        self._options = tuple(options)
        self._log = log
        self._history = history
        self._clock = clock
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all workers; return when each was ready once.

        Raises:
            EngineDeadError: the workers do not get ready; the message names the log.
        """
        self._running = asyncio.create_task(self._supervisor.run(), name="soak-workers")
        ready = asyncio.create_task(self._supervisor.ready.wait())
        try:
            await asyncio.wait({ready, self._running}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise EngineDeadError(f"the workers did not get ready; their log is {self._log}")
        finally:
            ready.cancel()

    def check(self) -> None:
        """Raise the error that ended the workers, if they have ended.

        Raises:
            EngineDeadError: the workers of a slot never get ready.
        """
        if self._running is not None and self._running.done() and not self._running.cancelled():
            self._running.result()

    def kill(self, slot: WorkerSlot) -> None:
        slot.is_doomed = True
        slot.member.signal(signal.SIGKILL)

    def stop(self, slot: WorkerSlot) -> None:
        slot.is_stopped = True
        slot.member.signal(signal.SIGSTOP)

    def wake(self, slot: WorkerSlot) -> None:
        slot.is_stopped = False
        slot.member.signal(signal.SIGCONT)

    async def close(self) -> None:
        """Drain all workers; kill those that do not end within END_S."""
        for slot in self.slots:
            self.wake(slot)
        self._supervisor.stop()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=END_S)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def tracebacks(self) -> list[str]:
        """Return the last line of every traceback in the workers' log."""
        found, is_inside = [], False
        for line in self._log.read_text(errors="replace").splitlines():
            if line.startswith("Traceback "):
                is_inside = True
            elif is_inside and not line.startswith(" "):
                found.append(line)
                is_inside = False
        return found

    def _argv(self, member: Member) -> Sequence[str]:
        """Return the command line of a slot's next process, and reset the slot."""
        slot = self.slots[member.number - 1]
        slot.is_doomed = slot.is_stopped = False
        slot.name = f"w{member.number}-{member.starts}"
        address = ("--leash", "--nats", slot.proxy.url, "--worker-id", slot.name)
        return (*self._command, *address, *self._options)

    def _died(self, member: Member, code: int) -> float:
        slot = self.slots[member.number - 1]
        reason = "killed" if slot.is_doomed else "poison" if code == EXIT_CODE else "other"
        self._history.died.append(Died(self._clock(), slot.name, reason, code))  # type: ignore[arg-type]  # one of three
        slot.unready_deaths = 0 if member.is_ready or slot.is_doomed else slot.unready_deaths + 1
        if slot.unready_deaths >= MAX_UNREADY_DEATHS:
            raise EngineDeadError(f"worker {member.number} never gets ready; the log is {self._log}")
        return 0.0
