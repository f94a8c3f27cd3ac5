"""`mesh watch`: the services of a mesh, without a worker."""

import asyncio
import secrets

from mesh.broker import topology
from mesh.broker.connection import connect
from mesh.cli import loop, render
from mesh.cli.act.place import connect_options
from mesh.cli.act.telemetry import Station, of_process
from mesh.cli.options import Nats
from mesh.cli.watching import Watching
from mesh.control.audit import auditing
from mesh.control.services import counted, services
from mesh.protocol.subjects import Names


async def serve(nats: Nats, watching: Watching) -> None:
    """Host the services until a signal.

    Raises:
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    names, who = Names(nats.namespace), f"watch-{secrets.token_hex(4)}"
    ended = asyncio.Event()
    loop.on_signals(lambda number: ended.set())
    station = Station(watching, names, who)
    async with station.opened("mesh-watch"), connect(connect_options(nats, "mesh-watch")) as connection:
        topology.check_server(connection.server_version)
        await topology.read_settings(connection, names)
        station.condition = lambda: of_process(connection, ended)
        async with (
            auditing(connection, names, who, observer=station.observer) as audit,
            services(connection, names, who, audit=audit),
            counted(station.census, connection),
        ):
            render.say(f"{who} ready: mesh {names.ns} is watched over")
            await ended.wait()
