"""The nats-servers of a soak: one, or a cluster of three on loopback. They are killed and started again."""

import asyncio
import random
import socket
from pathlib import Path

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.errors import BrokerError, ConfigError
from mesh.server import EmbeddedServer

# Below the ports of outgoing connections. Otherwise a client that retries a dead server's port could get that port for
# its own end. It would then connect to itself, and the server could not start again.
PORTS = range(20_000, 32_000)
DECLARE_S = 40.0  # for a cluster to elect its leaders
START_TRIES = 5


class Servers:
    """The servers of one soak: `start`, `declare`, then any `kill` and `revive`, then `stop`."""

    def __init__(self, folder: Path, count: int) -> None:
        """Create the servers; each has its own data folder. `count`: 1, or 3 for a cluster."""
        ports = _free_ports(2 * count)
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports[count:])
        self.all = [
            EmbeddedServer(
                folder / f"nats-{number}",
                port,
                f"n{number}",
                # Clients must not learn of the other servers: they would bypass the proxies that inject faults.
                f"cluster {{ name: soak, listen: 127.0.0.1:{route}, no_advertise: true, routes: [{routes}] }}"
                if count > 1
                else "",
            )
            for number, (port, route) in enumerate(zip(ports[:count], ports[count:], strict=True), 1)
        ]

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.all]

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self.all)

    async def start(self) -> None:
        """Start all servers.

        Raises:
            ConfigError: a server does not start.
        """
        await asyncio.gather(*(server.start() for server in self.all))

    async def declare(self, broker: Broker, settings: MeshSettings, model: str) -> None:
        """Declare the mesh, once the cluster has its leaders.

        Raises:
            BrokerError: the cluster had no leaders within DECLARE_S.
        """
        end = asyncio.get_running_loop().time() + DECLARE_S
        while True:
            try:
                changes = await topology.plan(broker, settings, [model])
                await topology.apply(broker.connection, changes)
                return
            except BrokerError:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.2)  # a cluster's only sign of its leaders is that it answers

    async def kill(self, server: EmbeddedServer) -> None:
        """Kill a server at once, as a crash would."""
        await server.stop(kill=True)

    async def revive(self, server: EmbeddedServer) -> None:
        """Start a server again on its store.

        Raises:
            ConfigError: the server does not start.
        """
        for attempt in range(START_TRIES):
            try:
                await server.start()
                return
            except ConfigError:
                if attempt == START_TRIES - 1:
                    raise
                await asyncio.sleep(0.2)  # the port, or the store's lock, is not free yet

    async def stop(self) -> None:
        """Stop all servers."""
        await asyncio.gather(*(server.stop() for server in self.all))


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
