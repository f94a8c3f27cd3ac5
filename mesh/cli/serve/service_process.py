"""One service of a mesh in a process without a worker. Called by `mesh reconcile` and `mesh frontdoor`."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from mesh.audit.writer import auditing
from mesh.broker import topology
from mesh.broker.transport.connection import connect
from mesh.cli.connecting import connect_options
from mesh.cli.option_values import Nats
from mesh.cli.serve.monitoring import Monitoring, of_process
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.terminal import loop, render
from mesh.hosting.services import Doors, counted
from mesh.protocol.subjects import Names

Host = Callable[..., AbstractAsyncContextManager[Doors]]


async def serve(nats: Nats, watching: MonitoringOptions, kind: str, host: Host, says: str) -> None:
    """Host the services that `host` opens, until a signal.

    Raises:
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    names, who = Names(nats.namespace), f"{kind}-{secrets.token_hex(4)}"
    ended = asyncio.Event()
    loop.on_signals(lambda number: ended.set())
    station = Monitoring(watching, names, who)
    async with station.opened(f"mesh-{kind}"), connect(connect_options(nats, f"mesh-{kind}")) as connection:
        topology.check_server(connection.server_version)
        await topology.read_settings(connection, names)
        station.condition = lambda: of_process(connection, ended)
        async with (
            auditing(connection, names, who, observer=station.observer) as audit,
            host(connection, names, who, audit=audit),
            counted(station.mesh_exporter, connection),
        ):
            render.say(f"{who} ready: {says.format(ns=names.ns)}")
            await ended.wait()
