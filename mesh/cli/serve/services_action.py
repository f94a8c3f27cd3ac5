"""`mesh reconcile` and `mesh frontdoor`: services of a mesh, without a worker."""

import asyncio
import functools
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
from mesh.hosting.services import Doors, counted, doors, services
from mesh.protocol.subjects import Names

Host = Callable[..., AbstractAsyncContextManager[Doors]]


async def reconcile(nats: Nats, watching: MonitoringOptions) -> None:
    """Keep a mesh in order until a signal; as `_serve`."""
    await _serve(nats, watching, "reconcile", services, "mesh {ns} is reconciled")


async def frontdoor(nats: Nats, watching: MonitoringOptions) -> None:
    """Answer plain NATS requests until a signal; as `_serve`."""
    host = functools.partial(doors, has_frontdoor=True)
    await _serve(nats, watching, "frontdoor", host, "{ns}.rpc.<tenant>.<model> is answered")


async def _serve(nats: Nats, watching: MonitoringOptions, kind: str, host: Host, says: str) -> None:
    """Host what `host` opens.

    Raises:
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    names, who = Names(nats.namespace), f"{kind}-{secrets.token_hex(4)}"
    ended = asyncio.Event()
    loop.on_signals(lambda number: ended.set())
    station = Monitoring(watching, names, who)
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
