"""`mesh frontdoor`: what can be asked of a mesh, without a worker."""

import asyncio
import secrets

from mesh.broker import topology
from mesh.broker.connection import connect
from mesh.cli import loop, render
from mesh.cli.act.place import connect_options
from mesh.cli.options import Nats
from mesh.control.services import doors
from mesh.protocol.subjects import Names


async def serve(nats: Nats) -> None:
    """Answer until a signal.

    Raises:
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    names, who = Names(nats.namespace), f"frontdoor-{secrets.token_hex(4)}"
    ended = asyncio.Event()
    loop.on_signals(lambda number: ended.set())
    async with connect(connect_options(nats, "mesh-frontdoor")) as connection:
        topology.check_server(connection.server_version)
        await topology.read_settings(connection, names)
        async with doors(connection, names, who, has_frontdoor=True):
            render.say(f"{who} ready: {names.ns}.rpc.<tenant>.<model> is answered")
            await ended.wait()
