"""One worker process, whole: the engine, the connection, the worker, and the services every worker hosts.

Called by `mesh worker`, `mesh up`, and by programs that embed a worker.
"""

import asyncio
from collections.abc import Callable

from mesh.broker import topology
from mesh.broker.connection import connect
from mesh.broker.options import ConnectOptions
from mesh.control.services import services
from mesh.engines.base import Engine
from mesh.protocol.subjects import Names
from mesh.signals import Observer, ignore
from mesh.worker.worker import Worker, WorkerOptions


async def host_worker(
    engine: Engine,
    connect_options: ConnectOptions,
    options: WorkerOptions,
    *,
    names: Names | None = None,
    observer: Observer = ignore,
    on_ready: Callable[[Worker], None] | None = None,
) -> None:
    """Serve `engine` until the worker is drained; `on_ready` gets the worker once it pulls.

    NATS is asked first whether there is a mesh, because loading a model to learn that there is none takes minutes.
    Then the engine is started with no connection open, so that an engine process forked from this one holds no
    socket of ours; it is stopped in the end in every case.

    Raises:
        ConfigError, EngineDeadError: the engine did not start, or died.
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    names = names or Names()
    async with connect(connect_options) as connection:
        topology.check_server(connection.server_version)
        await topology.read_settings(connection, names)
    try:
        await engine.start()
        await serve_engine(engine, connect_options, options, names=names, observer=observer, on_ready=on_ready)
    finally:
        await engine.stop()


async def serve_engine(
    engine: Engine,
    connect_options: ConnectOptions,
    options: WorkerOptions,
    *,
    names: Names,
    observer: Observer = ignore,
    on_ready: Callable[[Worker], None] | None = None,
) -> None:
    """The same for an engine that is started already, and that the caller stops.

    Raises:
        EngineDeadError, DisconnectedError, TopologyError: as `host_worker`.
    """
    async with connect(connect_options) as connection:
        worker = Worker(engine, connection, names, options, observer)
        announcing = asyncio.create_task(_announce(worker, on_ready), name="mesh-announce")
        try:
            async with services(connection, names, options.name):
                await worker.serve()
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


async def _announce(worker: Worker, on_ready: Callable[[Worker], None] | None) -> None:
    await worker.ready.wait()
    if on_ready is not None:
        on_ready(worker)
