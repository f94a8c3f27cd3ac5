"""Supervises workers as child processes: starts them, restarts dead ones, and ends all together.

A child's stdin is a pipe from this process. The child ends when the pipe closes (`--leash`), so no child outlives this
process. Each child has its own session, so Ctrl-C reaches only this process.
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
LAST_WORDS_S = 1.0  # for the last lines of an ended worker: its engine process may keep the pipe open a little longer
READY = " ready: "  # in the line that a worker prints when it starts to pull
KEPT_VARIABLES = ("MESH_DEBUG",)  # MESH_ variables that a child inherits; other settings are on its command line


@dataclass
class Member:
    """One numbered place for a worker, and its current process."""

    number: int  # from 1
    process: asyncio.subprocess.Process | None = None
    starts: int = 0  # processes started for this place
    ready_s: float | None = None  # loop time when the newest process was ready; None: not yet
    ended_s: float = 0.0  # loop time when the previous process ended

    @property
    def is_ready(self) -> bool:
        return self.ready_s is not None

    @property
    def lived_s(self) -> float:
        """Seconds for which the ended process was ready; 0 if it never was."""
        return 0.0 if self.ready_s is None else self.ended_s - self.ready_s

    def signal(self, number: int) -> None:
        """Sends a signal to the process, if there is one."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


# Called with a place and the exit code of its process. Returns the seconds until the next start; None leaves the place
# empty. An exception ends the supervisor.
Restart = Callable[[Member, int], float | None]


class Supervisor:
    """Keeps a number of worker processes running. Call `run` once; call `stop` at any time, and repeatedly."""

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
        """Prepares the supervisor; `run` starts the processes.

        Args:
            size: the number of places to keep filled.
            command: the arguments of the next process of a place.
            restart: decides when a place's next process starts.
            report: receives one line per event, and every line that a worker prints.
            log_file: receives the workers' stderr; None: they inherit this process's stderr.
            is_merciless: on Linux, the kernel kills the children when this process ends, suspended ones too.
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
        self.ready = asyncio.Event()  # set when all places are ready at the same time
        self.deaths = 0  # unrequested exits with an error

    def __repr__(self) -> str:
        alive = sum(1 for each in self.members if each.process is not None)
        return f"<Supervisor of {len(self.members)}, {alive} alive>"

    async def run(self) -> None:
        """Keeps every place filled until `stop`, and returns when all processes have ended. It never leaves one.

        Raises:
            MeshError: `restart` raised it.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for member in self.members:
                    group.create_task(self._keep(member), name=f"mesh-supervisor-{member.number}")
        except ExceptionGroup as failures:  # the first failure is enough
            raise failures.exceptions[0] from None

    def stop(self) -> None:
        """Drains the workers. A second call makes them hand their jobs over at once; a third kills them."""
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
        """Runs one process in this place and returns its exit code."""
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
        listening = asyncio.create_task(self._listen(member, process), name=f"mesh-supervisor-output-{member.number}")
        try:
            if self._stopping.is_set():  # `stop` came before the process existed
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
    """Describes an exit code in words. Pure."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _environment() -> dict[str, str]:
    """Returns this process's environment without MESH_ variables, which would set the child's options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MESH_") or name in KEPT_VARIABLES}
