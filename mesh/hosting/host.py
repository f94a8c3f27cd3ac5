"""Runs a whole worker process: the engine, the connection, the worker, and the services beside it."""

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import replace

from mesh.audit.writer import Auditor
from mesh.broker import topology
from mesh.broker.broker import open_broker
from mesh.broker.transport.options import ConnectOptions
from mesh.clock import SYSTEM
from mesh.control.status.mesh_exporter import MeshExporter
from mesh.engines.base import Engine
from mesh.errors import EngineDeadError
from mesh.hosting.services import Doors, counted, services
from mesh.policies.restart import Backoff
from mesh.protocol.subjects import Names
from mesh.signals import Observer, all_of, ignore
from mesh.worker.worker import Worker, WorkerOptions

log = logging.getLogger("mesh.hosting")

# Deaths in a row, each soon after the engine was ready, before the process ends with an error. One more than a request
# that kills every engine can cause before quarantine finds it.
ENGINE_DEATHS = 6

# A busy worker makes thousands of small objects a second and almost no cycles. Python's own thresholds collect every
# few jobs, which takes a twentieth of the worker's time.
GC_THRESHOLDS = (20_000, 20, 20)


async def host_worker(
    make_engine: Callable[[], Engine],
    connect_options: ConnectOptions,
    options: WorkerOptions,
    *,
    names: Names | None = None,
    observer: Observer = ignore,
    on_ready: Callable[[Worker], None] | None = None,
    mesh_exporter: MeshExporter | None = None,
) -> None:
    """Serves an engine until the worker is drained.

    First checks that the mesh exists, because loading a model takes minutes. Then starts the engine while no connection
    is open, so a forked engine process inherits no socket. The engine is always stopped at the end.

    A dead engine is replaced after a growing pause. After ENGINE_DEATHS deaths in a row, each soon after it was ready,
    the error is raised.

    Args:
        on_ready: receives the worker when it starts to pull.
        mesh_exporter: runs on the worker's connection; None: the process has none.

    Raises:
        ConfigError: the engine cannot be started as it is configured.
        EngineDeadError: it did not start the first time, or died too often.
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    names, backoff = names or Names(), Backoff(most_quick=ENGINE_DEATHS)
    async with open_broker(connect_options, names) as broker:
        topology.check_server(broker.connection.server_version)
        await topology.read_settings(broker)
    workers: list[Worker] = []

    def ready(worker: Worker) -> None:
        workers.append(worker)
        if on_ready is not None:
            on_ready(worker)

    while True:
        engine, ready_s = make_engine(), None
        try:
            await engine.start()
            # A model's objects live as long as the process. A collection that visits them would delay every stream by
            # tens of milliseconds, so they are frozen.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            ready_s = SYSTEM.monotonic_s()
            await serve_engine(
                engine,
                connect_options,
                options,
                names=names,
                observer=observer,
                on_ready=ready,
                mesh_exporter=mesh_exporter,
            )
            return
        except EngineDeadError as error:
            pause_s = backoff.died(0.0 if ready_s is None else SYSTEM.monotonic_s() - ready_s)
            if pause_s is None or not workers or workers[-1].was_told:
                raise
            log.error("the engine died and restarts in %g s: %s", pause_s, error, extra={"event": "engine_restart"})
        finally:
            await engine.stop()
        await asyncio.sleep(pause_s)


async def serve_engine(
    engine: Engine,
    connect_options: ConnectOptions,
    options: WorkerOptions,
    *,
    names: Names,
    observer: Observer = ignore,
    on_ready: Callable[[Worker], None] | None = None,
    mesh_exporter: MeshExporter | None = None,
) -> None:
    """Serves an engine that the caller has started, and will stop.

    Raises:
        EngineDeadError, DisconnectedError, TopologyError: as `host_worker`.
    """
    async with open_broker(connect_options, names) as broker, counted(mesh_exporter, broker):
        audit = Auditor(broker, options.name, observer)
        told = replace(options, shows_steps=options.shows_steps and observer is not ignore)
        worker = Worker(engine, broker, told, all_of(audit.observe, observer))
        announcing = asyncio.create_task(_announce(worker, on_ready), name="mesh-announce")
        try:
            async with services(broker, options.name, options.has_frontdoor, audit) as doors:
                resting = asyncio.create_task(_rest(worker, doors), name="mesh-rest")
                try:
                    await worker.serve()
                finally:
                    resting.cancel()
                    await asyncio.gather(resting, return_exceptions=True)
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
            await audit.close()


async def _rest(worker: Worker, doors: Doors) -> None:
    """Closes the front door to new requests when the worker drains."""
    await worker.draining.wait()
    doors.rest()


async def _announce(worker: Worker, on_ready: Callable[[Worker], None] | None) -> None:
    await worker.ready.wait()
    if on_ready is not None:
        on_ready(worker)
