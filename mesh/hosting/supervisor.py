"""Workers as child processes: started, watched, started again when they die, ended together.

A child holds the reading end of a pipe as its stdin and ends when the pipe does (`--leash`), so none outlives us,
however we end. Each child is in a session of its own, so a Ctrl-C reaches this process only.
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

from mesh.server import die_with

HURRY_S = 5.0  # for a worker to hand its jobs back after a second `stop`
LAST_WORDS_S = 1.0  # for the last lines of a worker that ended: its engine process may hold the pipe a little longer
READY = " ready: "  # in the one line that a worker prints when it pulls
KEPT_VARIABLES = ("MESH_DEBUG",)  # of ours; the others are on the child's command line


@dataclass
class Member:
    """One place, and the process that holds it now."""

    number: int  # from 1
    process: asyncio.subprocess.Process | None = None
    starts: int = 0  # processes that have held this place
    ready_s: float | None = None  # when the newest one was ready, loop time; None: not yet
    ended_s: float = 0.0  # when the one before ended, loop time

    @property
    def is_ready(self) -> bool:
        return self.ready_s is not None

    @property
    def lived_s(self) -> float:
        """How long the process that ended was ready; 0: it never was."""
        return 0.0 if self.ready_s is None else self.ended_s - self.ready_s

    def signal(self, number: int) -> None:
        """Send a signal to the process, if there is one."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


# Told that the process of a place ended with this exit code, answers in how many seconds the next one starts; None:
# never, the place stays empty. What it raises ends all.
Restart = Callable[[Member, int], float | None]


class Supervisor:
    """See the module's docstring. `run` once; `stop` at any time, also again."""

    def __init__(
        self,
        size: int,
        command: Callable[[Member], Sequence[str]],
        restart: Restart,
        *,
        report: Callable[[str], None] = lambda line: None,
        log_file: Path | None = None,
        is_merciless: bool = False,
    ) -> None:
        """Nothing is started yet.

        Args:
            size: how many places are kept filled.
            command: the arguments of the next process of a place.
            restart: decides what follows a death.
            report: gets one line for everything that happens, and every line that a worker prints.
            log_file: gets what the workers write to stderr; None: our own stderr does.
            is_merciless: the kernel kills suspended children too when this process ends (Linux).
        """
        self.members = [Member(number) for number in range(1, size + 1)]
        self._command = command
        self._restart = restart
        self._report = report
        self._log_file = log_file
        self._is_merciless = is_merciless and sys.platform == "linux"
        self._stops = 0
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.ready = asyncio.Event()  # every place was ready at the same time
        self.deaths = 0  # that nobody asked for

    def __repr__(self) -> str:
        alive = sum(1 for each in self.members if each.process is not None)
        return f"<Supervisor of {len(self.members)}, {alive} alive>"

    async def run(self) -> None:
        """Keep every place filled until `stop`; returns when all have ended. No process is left in any case.

        Raises:
            MeshError: whatever `restart` raised.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for member in self.members:
                    group.create_task(self._keep(member), name=f"mesh-supervisor-{member.number}")
        except ExceptionGroup as failures:  # one reason is enough
            raise failures.exceptions[0] from None

    def stop(self) -> None:
        """Drain the workers. Called again: make them hand their jobs over now; and again: kill them."""
        self._stops += 1
        self._stopping.set()
        self._signal_all(signal.SIGTERM if self._stops < 3 else signal.SIGKILL)
        if self._stops == 2:
            self._loop.call_later(HURRY_S, self._signal_all, signal.SIGKILL)

    async def _keep(self, member: Member) -> None:
        while not self._stopping.is_set():
            code = await self._live(member)
            if self._stopping.is_set():
                self._report(f"worker {member.number} ended{'' if code == 0 else f' ({describe(code)})'}")
                return
            self.deaths += code != 0
            pause_s = self._restart(member, code)
            if pause_s is None:
                await self._stopping.wait()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _live(self, member: Member) -> int:
        """One process in this place, from its start to its exit code."""
        member.ready_s = None
        member.starts += 1
        with contextlib.ExitStack() as stack:
            stderr = stack.enter_context(self._log_file.open("ab")) if self._log_file is not None else None
            process = await asyncio.create_subprocess_exec(
                *self._command(member),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env=_environment(),
                preexec_fn=partial(die_with, os.getpid(), signal.SIGKILL) if self._is_merciless else None,
            )
        member.process = process
        listening = asyncio.create_task(self._listen(member, process), name=f"mesh-supervisor-ears-{member.number}")
        try:
            if self._stopping.is_set():  # it was told before it was there
                process.terminate()
            self._report(f"worker {member.number} starts (pid {process.pid})")
            code = await process.wait()
            member.ended_s = self._loop.time()
            await asyncio.wait({listening}, timeout=LAST_WORDS_S)
            return code
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            member.process = None

    async def _listen(self, member: Member, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._report(line)
            if READY in line:
                member.ready_s = self._loop.time()
                if all(each.is_ready for each in self.members):
                    self.ready.set()

    def _signal_all(self, number: int) -> None:
        for member in self.members:
            member.signal(number)


def describe(code: int) -> str:
    """An exit code in words. Pure."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _environment() -> dict[str, str]:
    """Ours, without what would set the child's options behind our back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MESH_") or name in KEPT_VARIABLES}
