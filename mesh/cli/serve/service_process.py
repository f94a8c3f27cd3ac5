"""One service of a mesh in a process without a worker. Called by `mesh reconcile` and `mesh frontdoor`."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from mesh.audit.writer import auditing
from mesh.broker import topology
from mesh.broker.broker import open_broker
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
    station = Monitoring(watching, who)
    async with station.opened(f"mesh-{kind}"), open_broker(connect_options(nats, f"mesh-{kind}"), names) as broker:
        topology.check_server(broker.connection.server_version)
        await topology.read_settings(broker)
        station.condition = lambda: of_process(broker.connection, ended)
        async with (
            auditing(broker, who, observer=station.observer) as audit,
            host(broker, who, audit=audit),
            counted(station.mesh_exporter, broker),
        ):
            render.say(f"{who} ready: {says.format(ns=names.ns)}")
            await ended.wait()
