"""What every worker process hosts beside its worker, and what runs alone where no worker does.

Any number of processes may host them: they share the work by queue groups, by a lease, or by a fence, and two that do
the same do no harm.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mesh.audit.writer import Auditor, auditing
from mesh.broker.broker import Broker, open_broker
from mesh.broker.transport.options import ConnectOptions
from mesh.broker.transport.service import Service
from mesh.control.status.mesh_exporter import MeshExporter
from mesh.gateway.nats.jobs_api import JobsApi
from mesh.gateway.nats.service import FrontDoor
from mesh.hosting.clock_sync import ClockSync
from mesh.protocol.subjects import Names
from mesh.reconcile.expiry import Expiry
from mesh.reconcile.failure_detector import FailureDetector
from mesh.reconcile.unroutable import Unroutable
from mesh.signals import Observer, ignore


class Doors:
    """What can be asked of a process: to steer jobs, and through the front door if it has one."""

    def __init__(self, broker: Broker, who: str, has_frontdoor: bool, audit: Auditor) -> None:
        self._jobs_api = JobsApi(broker, who, audit)
        self._frontdoor = FrontDoor(broker, audit=audit) if has_frontdoor else None
        doors = (self._frontdoor, self._jobs_api) if self._frontdoor is not None else (self._jobs_api,)
        self._service = Service(broker, who, tuple(each.endpoint for each in doors))

    def rest(self) -> None:
        """Take nothing more on at the front door; whoever came in is served."""
        if self._frontdoor is not None:
            self._service.shut(self._frontdoor.endpoint.name)

    async def close(self) -> None:
        """Answer no more. Requesters at the front door are told that their jobs go on."""
        self._service.close()
        if self._frontdoor is not None:
            await self._frontdoor.close()
        await self._jobs_api.close()


@contextlib.asynccontextmanager
async def doors(broker: Broker, who: str, has_frontdoor: bool, audit: Auditor | None = None) -> AsyncIterator[Doors]:
    """Answer requests as the micro service of this mesh. `who` tells this process from others; `audit` is its own."""
    async with auditing(broker, who, audit) as told:
        opened, clock_sync = Doors(broker, who, has_frontdoor, told), ClockSync(broker)
        try:
            yield opened
        finally:
            await clock_sync.close()
            await opened.close()


@contextlib.asynccontextmanager
async def services(
    broker: Broker, who: str, has_frontdoor: bool = False, audit: Auditor | None = None
) -> AsyncIterator[Doors]:
    """Answer requests; end unroutable and what is past its deadline; watch over workers.

    `who` hosts them: the name of a worker, which then watches some others, or of another process, which watches all.
    What they do is told to `audit`; None: to one of their own.
    """
    async with (
        auditing(broker, who, audit) as told,
        doors(broker, who, has_frontdoor, told) as opened,
    ):
        ending = [kind(broker, who, told) for kind in (Unroutable, Expiry)]
        hosted = [*ending, FailureDetector(broker, who)]
        try:
            yield opened
        finally:
            await asyncio.gather(*(each.close() for each in hosted), return_exceptions=True)


async def keep_watch(
    options: ConnectOptions,
    names: Names,
    who: str,
    mesh_exporter: MeshExporter | None = None,
    observer: Observer = ignore,
) -> None:
    """Host the services on a connection of their own until cancelled.

    Runs the mesh exporter too, if this process has one.

    Raises:
        DisconnectedError: there was no NATS to begin with.
    """
    async with (
        open_broker(options, names) as broker,
        auditing(broker, who, observer=observer) as audit,
        services(broker, who, audit=audit),
        counted(mesh_exporter, broker),
    ):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def counted(mesh_exporter: MeshExporter | None, broker: Broker) -> AsyncIterator[None]:
    """Take the mesh exporter on this connection, if there is one to take."""
    if mesh_exporter is None:
        yield
        return
    running = asyncio.create_task(mesh_exporter.run(broker), name="mesh-mesh_exporter")
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
