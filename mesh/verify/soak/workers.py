"""Workers as child processes that are killed, suspended, and started again at once when they die.

Each place has its own way to NATS. Every process that holds a place has a name of its own, `w<place>-<number>`, so
that a history says which one did what. None outlives us: they hang on a pipe (`--leash`), and the kernel kills them,
also the suspended ones, when we end.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mesh.engines.simulator.engine import EXIT_CODE
from mesh.errors import EngineDeadError
from mesh.server import die_with
from mesh.verify.soak.history import Died, RunHistory
from mesh.verify.soak.proxy import Proxy

READY_S = 30.0
END_S = 10.0  # for a worker to drain; then it is killed
READY = " ready: "  # in the one line a worker prints
WORKER = (sys.executable, "-m", "mesh", "worker")
MAX_UNREADY_DEATHS = 10  # in a row, of one place: these workers do not work


@dataclass
class WorkerSlot:
    """One place among the workers, and the process that holds it now."""

    number: int
    proxy: Proxy
    process: asyncio.subprocess.Process | None = None
    name: str = ""
    lives: int = 0
    unready_deaths: int = 0
    is_ready: bool = False
    is_doomed: bool = False  # killed by us
    is_stopped: bool = False


class FaultySupervisor:
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
        self.places = [WorkerSlot(number, proxy) for number, proxy in enumerate(proxies, 1)]
        self._command = tuple(command)
        self._options = tuple(options)
        self._log = log
        self._history = history
        self._clock = clock
        self._is_closing = False
        self._keepers: list[asyncio.Task[None]] = []
        self._all_ready = asyncio.Event()

    async def start(self) -> None:
        """Start all of them; returns when each was ready once.

        Raises:
            EngineDeadError: they do not get ready; the log says why.
        """
        self._keepers = [
            asyncio.create_task(self._keep(place), name=f"soak-worker-{place.number}") for place in self.places
        ]
        ready = asyncio.create_task(self._all_ready.wait())
        try:
            await asyncio.wait({ready, *self._keepers}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise EngineDeadError(f"the workers did not get ready; their log is {self._log}")
        finally:
            ready.cancel()

    def check(self) -> None:
        """Raise what ended a keeper, if one has ended.

        Raises:
            EngineDeadError: a place cannot be filled.
        """
        for keeper in self._keepers:
            if keeper.done() and not keeper.cancelled():
                keeper.result()

    def kill(self, place: WorkerSlot) -> None:
        place.is_doomed = True
        self._signal(place, signal.SIGKILL)

    def stop(self, place: WorkerSlot) -> None:
        place.is_stopped = True
        self._signal(place, signal.SIGSTOP)

    def wake(self, place: WorkerSlot) -> None:
        place.is_stopped = False
        self._signal(place, signal.SIGCONT)

    async def close(self) -> None:
        """Drain all of them; kill those that do not end."""
        self._is_closing = True
        for place in self.places:
            self.wake(place)
            self._signal(place, signal.SIGTERM)
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=END_S)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

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

    async def _keep(self, place: WorkerSlot) -> None:
        """Keep one place filled."""
        while not self._is_closing:
            place.lives += 1
            place.name = f"w{place.number}-{place.lives}"
            code = await self._live(place)
            if self._is_closing:
                return
            reason = "killed" if place.is_doomed else "poison" if code == EXIT_CODE else "other"
            self._history.died.append(Died(self._clock(), place.name, reason, code))  # type: ignore[arg-type]  # one of three
            place.unready_deaths = 0 if place.is_ready or place.is_doomed else place.unready_deaths + 1
            if place.unready_deaths >= MAX_UNREADY_DEATHS:
                raise EngineDeadError(f"worker {place.number} never gets ready; the log is {self._log}")

    async def _live(self, place: WorkerSlot) -> int:
        """One process in this place, from its start to its exit code."""
        place.is_ready = place.is_doomed = place.is_stopped = False
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *("--leash", "--nats", place.proxy.url, "--worker-id", place.name),
                *self._options,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("MESH_")},
                preexec_fn=partial(die_with, os.getpid(), signal.SIGKILL) if sys.platform == "linux" else None,
            )
        place.process = process
        listening = asyncio.create_task(self._listen(place, process), name=f"soak-ears-{place.number}")
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            place.process = None

    async def _listen(self, place: WorkerSlot, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            if READY in raw.decode(errors="replace"):
                place.is_ready = True
                if all(each.is_ready for each in self.places):
                    self._all_ready.set()

    def _signal(self, place: WorkerSlot, number: int) -> None:
        if place.process is not None:
            with contextlib.suppress(ProcessLookupError):
                place.process.send_signal(number)
