"""The workers of a soak: killed, suspended, and started again at once when they die.

Each place has its own way to NATS. Every process that holds a place has a name of its own, `w<place>-<number>`, so
that a history says which one did what.
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
MAX_UNREADY_DEATHS = 10  # in a row, of one place: these workers do not work


@dataclass
class WorkerSlot:
    """One place: its way to NATS, and what was done to the process that holds it now."""

    member: Member
    proxy: Proxy
    name: str = ""
    unready_deaths: int = 0
    is_doomed: bool = False  # killed by us
    is_stopped: bool = False

    @property
    def number(self) -> int:
        return self.member.number

    @property
    def is_ready(self) -> bool:
        return self.member.is_ready


class FaultyWorkers:
    """`start`, then faults on its places at will, then `close`."""

    def __init__(
        self,
        proxies: Sequence[Proxy],
        command: Sequence[str],
        options: Sequence[str],
        log: Path,
        history: RunHistory,
        clock: Callable[[], float],
    ) -> None:
        """A worker is started as `command`, its address and name, and `options`; what it logs goes to `log`."""
        self._supervisor = Supervisor(len(proxies), self._argv, self._died, log_file=log, is_merciless=True)
        self.places = [
            WorkerSlot(member, proxy) for member, proxy in zip(self._supervisor.members, proxies, strict=True)
        ]
        self._command = tuple(command)
        self._options = tuple(options)
        self._log = log
        self._history = history
        self._clock = clock
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all of them; returns when each was ready once.

        Raises:
            EngineDeadError: they do not get ready; the log says why.
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
        """Raise what ended the workers, if they have ended.

        Raises:
            EngineDeadError: a place cannot be filled.
        """
        if self._running is not None and self._running.done() and not self._running.cancelled():
            self._running.result()

    def kill(self, place: WorkerSlot) -> None:
        place.is_doomed = True
        place.member.signal(signal.SIGKILL)

    def stop(self, place: WorkerSlot) -> None:
        place.is_stopped = True
        place.member.signal(signal.SIGSTOP)

    def wake(self, place: WorkerSlot) -> None:
        place.is_stopped = False
        place.member.signal(signal.SIGCONT)

    async def close(self) -> None:
        """Drain all of them; kill those that do not end."""
        for place in self.places:
            self.wake(place)
        self._supervisor.stop()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=END_S)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def tracebacks(self) -> list[str]:
        """The last line of every traceback that a worker has logged."""
        found, is_inside = [], False
        for line in self._log.read_text(errors="replace").splitlines():
            if line.startswith("Traceback "):
                is_inside = True
            elif is_inside and not line.startswith(" "):
                found.append(line)
                is_inside = False
        return found

    def _argv(self, member: Member) -> Sequence[str]:
        """The command line of the next process of a place, about which nothing is known yet."""
        place = self.places[member.number - 1]
        place.is_doomed = place.is_stopped = False
        place.name = f"w{member.number}-{member.starts}"
        address = ("--leash", "--nats", place.proxy.url, "--worker-id", place.name)
        return (*self._command, *address, *self._options)

    def _died(self, member: Member, code: int) -> float:
        place = self.places[member.number - 1]
        reason = "killed" if place.is_doomed else "poison" if code == EXIT_CODE else "other"
        self._history.died.append(Died(self._clock(), place.name, reason, code))  # type: ignore[arg-type]  # one of three
        place.unready_deaths = 0 if member.is_ready or place.is_doomed else place.unready_deaths + 1
        if place.unready_deaths >= MAX_UNREADY_DEATHS:
            raise EngineDeadError(f"worker {member.number} never gets ready; the log is {self._log}")
        return 0.0
