"""Services that every worker process hosts beside its worker, and that `mesh reconcile` hosts alone.

Any number of processes may host them. They share the work by queue groups, a lease or a fence; repeated work does no
harm.
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
    """The endpoints of a process: the jobs API, and the front door if it has one."""

    def __init__(self, broker: Broker, host: str, has_frontdoor: bool, audit: Auditor) -> None:
        self._jobs_api = JobsApi(broker, host, audit)
        self._frontdoor = FrontDoor(broker, audit=audit) if has_frontdoor else None
        doors = (self._frontdoor, self._jobs_api) if self._frontdoor is not None else (self._jobs_api,)
        self._service = Service(broker, host, tuple(each.endpoint for each in doors))

    def rest(self) -> None:
        """Accepts no more requests at the front door. Open requests are still answered."""
        if self._frontdoor is not None:
            self._service.shut(self._frontdoor.endpoint.name)

    async def close(self) -> None:
        """Stops answering. Tells open requesters at the front door that their jobs continue."""
        self._service.close()
        if self._frontdoor is not None:
            await self._frontdoor.close()
        await self._jobs_api.close()


@contextlib.asynccontextmanager
async def doors(broker: Broker, host: str, has_frontdoor: bool, audit: Auditor | None = None) -> AsyncIterator[Doors]:
    """Answers requests as the micro service of this mesh.

    Args:
        host: the unique name of this process.
        audit: the process's audit writer; None: a new one.
    """
    async with auditing(broker, host, audit) as told:
        opened, clock_sync = Doors(broker, host, has_frontdoor, told), ClockSync(broker)
        try:
            yield opened
        finally:
            await clock_sync.close()
            await opened.close()


@contextlib.asynccontextmanager
async def services(
    broker: Broker, host: str, has_frontdoor: bool = False, audit: Auditor | None = None
) -> AsyncIterator[Doors]:
    """Answers requests, ends unroutable and expired jobs, and detects dead workers.

    Args:
        host: the name of a worker, which watches some of its peers, or of another process, which watches all.
        audit: receives the services' entries; None: a new writer.
    """
    async with (
        auditing(broker, host, audit) as told,
        doors(broker, host, has_frontdoor, told) as opened,
    ):
        ending = [kind(broker, host, told) for kind in (Unroutable, Expiry)]
        hosted = [*ending, FailureDetector(broker, host)]
        try:
            yield opened
        finally:
            await asyncio.gather(*(each.close() for each in hosted), return_exceptions=True)


async def keep_watch(
    options: ConnectOptions,
    names: Names,
    host: str,
    mesh_exporter: MeshExporter | None = None,
    observer: Observer = ignore,
) -> None:
    """Hosts the services on their own connection until cancelled, and the mesh exporter if there is one.

    Raises:
        DisconnectedError: NATS could not be reached at the start.
    """
    async with (
        open_broker(options, names) as broker,
        auditing(broker, host, observer=observer) as audit,
        services(broker, host, audit=audit),
        counted(mesh_exporter, broker),
    ):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def counted(mesh_exporter: MeshExporter | None, broker: Broker) -> AsyncIterator[None]:
    """Runs the mesh exporter, if any, on this connection for as long as the context lasts."""
    if mesh_exporter is None:
        yield
        return
    running = asyncio.create_task(mesh_exporter.run(broker), name="mesh-exporter")
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
