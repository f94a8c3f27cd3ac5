"""What every rival is put together from: its processes, a Redis of its own, and the side that is measured."""

import asyncio
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesh.server import die_with, free_port
from tests.bench.cpu import Meter
from tests.bench.sides import SETTLE_S, Asker
from tests.bench.stream import BenchError

INSTALL = "pip install -e '.[bench-rivals]'"
REDIS = "apt-get install redis-server"
READY_S = 60.0
END_S = 15.0
LOOK_S = 0.05  # between two looks whether a port answers: foreign programs tell it in no other way

Times = dict[str, tuple[float, float]]  # job → when the engine got it, when its first token was due


@dataclass(slots=True)
class RivalSide:
    """A rival under load; `pids` by role, without this process, which is its client."""

    name: str
    asker: Asker
    pids: dict[str, tuple[int, ...]]
    times: Callable[[], Awaitable[Times]]

    def meter(self) -> Meter:
        return Meter({"client": os.getpid(), **self.pids})

    async def settle(self) -> None:
        await asyncio.sleep(SETTLE_S)

    async def take_times(self) -> Times:
        return await self.times()


@dataclass(slots=True)
class KeptTimes:
    """Times that come with the answers, where no one can ask the worker for them."""

    times: Times = field(default_factory=dict)

    async def take(self) -> Times:
        taken, self.times = self.times, {}
        return taken


def missing(modules: Sequence[str], *, redis: bool) -> str | None:
    """What to install before this rival can run; None if nothing."""
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} missing: {INSTALL}"
    if redis and shutil.which("redis-server") is None:
        return f"redis-server is not on PATH: {REDIS}"
    return None


@contextlib.asynccontextmanager
async def program(*argv: str, **variables: str) -> AsyncIterator[int]:
    """Run a program in a process group of its own, told to end with the context. Yields its pid."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, **variables},
        start_new_session=True,
        preexec_fn=_bound(),
    )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children that it left
        await process.wait()


def _bound() -> Callable[[], None] | None:
    """Ends with this process, however this one ends."""
    return functools.partial(die_with, os.getpid()) if sys.platform == "linux" else None


@contextlib.asynccontextmanager
async def redis_server() -> AsyncIterator[tuple[str, int]]:
    """A Redis of its own that keeps everything in memory; its URL and pid.

    Without `appendonly`, which is what the Debian package ships and faster: what it holds dies with it.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "dir": folder, "logfile": "redis.log"}
        argv = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
        async with program(*argv) as pid:
            await wait_port(port)
            yield f"redis://127.0.0.1:{port}/0", pid


async def wait_port(port: int) -> None:
    """Until something listens there.

    Raises:
        BenchError: nothing did for `READY_S`.
    """
    try:
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(LOOK_S)
                    continue
                writer.close()
                await writer.wait_closed()
                return
    except TimeoutError:
        raise BenchError(f"nothing listens on port {port} after {READY_S:.0f} s") from None


def family(pid: int) -> tuple[int, ...]:
    """A process and its descendants, as far as this system tells."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return (pid,)
    return (pid, *(each for child in map(int, text.split()) for each in family(child)))
