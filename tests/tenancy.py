"""A nats-server on nats/tenants.conf, as an operator starts it, with tenants on it that `mesh tenant` would add."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.control.tenants.account_file import AccountLimits
from mesh.control.tenants.accounts import Accounts
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import DisconnectedError
from mesh.hosting.host import host_worker
from mesh.protocol.subjects import Names
from mesh.server import die_with, find_binary, free_port
from mesh.worker.worker import Worker, WorkerOptions
from tests.running import MODEL, wait_until

NATS = Path(__file__).parents[1] / "nats"
ROLES = ("worker", "frontdoor", "operator", "monitor")


@dataclass
class Tenancy:
    """A server whose mesh belongs to several tenants."""

    folder: Path  # a copy of nats/, the store, the keys, the log
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def accounts(self) -> Accounts:
        return Accounts(self.folder / "nats" / "tenants.d", Names())

    def role(self, user: str) -> ConnectOptions:
        """How a process of the mesh connects."""
        inbox = "_INBOX_monitor" if user == "monitor" else "_INBOX"
        return ConnectOptions(servers=(self.url,), name=user, user=user, password=f"{user}-secret", inbox_prefix=inbox)

    def key(self, tenant: str) -> Path:
        return self.folder / f"{tenant}.nk"

    def tenant(self, name: str) -> ConnectOptions:
        """How somebody of a tenant connects."""
        return ConnectOptions(servers=(self.url,), name=name, nkey_seed=self.key(name))

    def add(self, tenant: str) -> None:
        """Write the tenant's account; the server has it after `reload`."""
        self.accounts.add(tenant, self.key(tenant), AccountLimits())

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def refused(self, user: str) -> list[str]:
        """What the server refused a role, as its log says."""
        return [line for line in self.log.splitlines() if "Violation" in line and f'user:{user}"' in line]

    async def start(self) -> None:
        environment = {f"MESH_{role.upper()}_PASSWORD": f"{role}-secret" for role in ROLES}
        environment |= {"MESH_NATS_STORE": str(self.folder / "store"), "MESH_NATS_SYNC": "120s"}
        ports = ("-p", str(self.port), "--http_port", str(free_port()))
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(find_binary()),
                *("-c", str(self.folder / "nats" / "tenants.conf"), *ports),
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                preexec_fn=partial(die_with, os.getpid()) if sys.platform == "linux" else None,
            )
        await wait_until(self._answers)

    async def _answers(self) -> bool:
        try:
            async with connect(self.role("operator")):
                return True
        except DisconnectedError:
            assert self.process is not None
            assert self.process.returncode is None, self.log
            return False

    def _has_reloaded(self, times: int) -> bool:
        return self.log.count("Reloaded server configuration") > times

    async def reload(self) -> None:
        """Have the server read its files again, twice: see `mesh.control.tenants.accounts.RELOAD`."""
        assert self.process is not None
        for _ in range(2):
            before = self.log.count("Reloaded server configuration")
            self.process.send_signal(signal.SIGHUP)
            await wait_until(partial(self._has_reloaded, before))

    async def start_worker(self, settings: SimulatorSettings | None = None, capacity: int | None = None) -> Worker:
        """A worker of the role `worker` in this process; returns once it pulls."""
        ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        made = settings or SimulatorSettings(model=MODEL)
        options = WorkerOptions(model=MODEL, grace_s=5.0, capacity=capacity)
        serving = host_worker(
            lambda: SimulatorEngine(made), self.role("worker"), options, names=Names(), on_ready=ready.set_result
        )
        task = asyncio.create_task(serving)
        self.tasks.append(task)
        both: set[asyncio.Future[Any]] = {task, ready}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return ready.result()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def running_tenancy(folder: Path, tenants: Sequence[str]) -> AsyncIterator[Tenancy]:
    """The server with these tenants and the mesh declared on it, and no worker yet."""
    shutil.copytree(NATS / "tenants.d", folder / "nats" / "tenants.d")
    shutil.copy(NATS / "tenants.conf", folder / "nats")
    tenancy = Tenancy(folder)
    for tenant in tenants:
        tenancy.add(tenant)
    await tenancy.start()
    try:
        async with connect(tenancy.role("operator")) as connection:
            settings = MeshSettings(lanes=1)
            await topology.apply(connection, await topology.plan(Broker(connection, Names()), settings, [MODEL]))
        yield tenancy
    finally:
        await tenancy.close()
