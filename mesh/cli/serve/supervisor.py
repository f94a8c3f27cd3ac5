"""Workers as child processes: started, watched, started again when they die, ended together.

`mesh up` and `mesh demo` own one supervisor. A child holds the reading end of a pipe as its stdin and ends when the
pipe does (`--leash`), so none outlives us, however we end. It is in a session of its own: a Ctrl-C is ours to act on.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mesh.cli.option_values import EngineChoice
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.terminal import failure
from mesh.errors import ConfigError, EngineDeadError
from mesh.policies.restart import Backoff

HURRY_S = 5.0  # what a worker gets to hand its jobs back when it was told twice
LAST_WORDS_S = 1.0
QUIET = MonitoringOptions(log_level="warning")
READY = " ready: "  # in the one line a worker prints
KEPT_VARIABLES = ("MESH_DEBUG",)  # of ours; the others are on the child's command line

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What one worker of the supervisor is started with."""

    url: str
    choice: EngineChoice
    name: str
    namespace: str = "mesh"
    grace_s: float = 30.0
    watching: MonitoringOptions = QUIET
    log_file: Path | None = None  # None: our stderr

    def argv(self, number: int = 1) -> list[str]:
        """The command line of the worker that has this number, from 1."""
        choice, watching = self.choice, self.watching
        port = watching.telemetry_port
        given: list[tuple[str, object]] = [
            ("--nats", self.url),
            ("--engine", choice.engine),
            ("--model", choice.model),
            ("--name", self.name),
            ("--max-model-len", choice.max_model_len),
            ("--capacity", choice.capacity),
            ("--namespace", self.namespace),
            ("--grace", self.grace_s),
            ("--log-level", watching.log_level),
            ("--log-format", watching.log_format),
            ("--telemetry-port", port + number if port else port),
            ("--telemetry-host", watching.telemetry_host),
            ("--otlp", watching.otlp),
            *(("--engine-arg", pair) for pair in choice.engine_arg),
        ]
        options = [text for key, value in given if value is not None for text in (key, str(value))]
        return [sys.executable, "-m", "mesh", "worker", "--leash", *options]


@dataclass
class _Member:
    """One place in the supervisor, and the process that holds it now."""

    number: int
    process: asyncio.subprocess.Process | None = None
    ready_s: float | None = None  # loop time
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """See the module's docstring. `run` once; `stop` at any time, also again."""

    def __init__(self, post: WorkerSpec, size: int, report: Report) -> None:
        """`report` gets one line for everything that happens."""
        self._post = post
        self._members = [_Member(number) for number in range(1, size + 1)]
        self._report = report
        self._stops = 0
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.ready = asyncio.Event()  # every member was ready
        self.deaths = 0  # that nobody asked for

    def __repr__(self) -> str:
        alive = sum(1 for each in self._members if each.process is not None)
        return f"<Crew of {len(self._members)}, {alive} alive>"

    async def run(self) -> None:
        """Keep every place filled until `stop`; returns when all have ended. No process is left in any case.

        Raises:
            ConfigError: a worker cannot start with these settings, and said why on stderr.
            EngineDeadError: a worker died too often.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for member in self._members:
                    group.create_task(self._keep(member), name=f"mesh-supervisor-{member.number}")
        except ExceptionGroup as failures:  # one reason is enough
            raise failures.exceptions[0] from None

    def stop(self) -> None:
        """Drain the workers. Called again: make them hand their jobs over now; and again: kill them."""
        self._stops += 1
        self._stopping.set()
        self._signal(signal.SIGTERM if self._stops < 3 else signal.SIGKILL)
        if self._stops == 2:
            self._loop.call_later(HURRY_S, self._signal, signal.SIGKILL)

    async def _keep(self, member: _Member) -> None:
        while not self._stopping.is_set():
            code = await self._live(member)
            if self._stopping.is_set():
                self._report(f"worker {member.number} ended{'' if code == 0 else f' ({describe(code)})'}")
                return
            if code == failure.OK:  # `mesh drain`, or a SIGTERM of its own: it was told to
                self._report(f"worker {member.number} was drained; it is not started again")
                await self._stopping.wait()  # NATS stays, and with it what waits in the queue
                return
            if code in (failure.USAGE, failure.CONFIG):
                raise ConfigError(f"worker {member.number} cannot start; the line above says why")
            self.deaths += 1
            lived_s = 0.0 if member.ready_s is None else self._loop.time() - member.ready_s
            pause_s = member.backoff.died(lived_s)
            if pause_s is None:
                raise EngineDeadError(
                    f"worker {member.number} died {member.backoff.quick} times in a row ({describe(code)}), giving up"
                )
            self._report(f"worker {member.number} died ({describe(code)}); starting it again in {pause_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _live(self, member: _Member) -> int:
        """One process in this place, from its start to its exit code."""
        member.ready_s = None
        with contextlib.ExitStack() as stack:
            log = self._post.log_file
            stderr = stack.enter_context(log.open("ab")) if log is not None else None
            process = await asyncio.create_subprocess_exec(
                *self._post.argv(member.number),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env=_environment(),
            )
        member.process = process
        try:
            if self._stopping.is_set():  # it was told before it was there
                process.terminate()
            self._report(f"worker {member.number} starts (pid {process.pid})")
            listening = asyncio.create_task(self._listen(member, process), name=f"mesh-supervisor-ears-{member.number}")
            code = await process.wait()
            # An engine process may hold the pipe a little longer than the worker lived.
            await asyncio.wait({listening}, timeout=LAST_WORDS_S)
            listening.cancel()
            return code
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
            member.process = None

    async def _listen(self, member: _Member, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._report(line)
            if READY in line:
                self._is_ready(member)

    def _is_ready(self, member: _Member) -> None:
        member.ready_s = self._loop.time()
        if all(each.ready_s is not None for each in self._members):
            self.ready.set()

    def _signal(self, number: int) -> None:
        for member in self._members:
            if member.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    member.process.send_signal(number)


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
