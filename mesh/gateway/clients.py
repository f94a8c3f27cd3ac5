"""Keeps the clients through which a front door submits: one for each tenant and encoding, made on demand.

An unused client costs only a few objects. Beyond MAX_IDLE clients, the longest unused are dropped.
"""

import asyncio
from dataclasses import dataclass

from mesh.broker.broker import Broker
from mesh.client.catalog import Catalog
from mesh.client.internal import ClientCore
from mesh.protocol.codec import Encoding

MAX_IDLE = 256


@dataclass(slots=True)
class _Kept:
    client: ClientCore
    polling: asyncio.Task[None]
    users: int = 0


class Clients:
    """A cache of clients, until `close`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._catalog = Catalog(broker)
        self._kept: dict[tuple[str, Encoding], _Kept] = {}  # the longest unused first
        self._unlisten = broker.connection.listen(self._connection_changed)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, tenant: str, encoding: Encoding) -> ClientCore:
        """The client of a tenant and encoding; each `get` keeps it until a `release`."""
        key: tuple[str, Encoding] = (tenant, encoding)
        kept = self._kept.pop(key, None)
        if kept is None:
            self._thin_out()
            where, shared = "the front door's NATS", self._catalog
            client = ClientCore(self._broker, tenant, encoding, where, catalog=shared, has_neighbours=True)
            kept = _Kept(client, asyncio.create_task(client.poller.run(), name=f"mesh-frontdoor-poller-{tenant}"))
        kept.users += 1
        self._kept[key] = kept
        return kept.client

    def release(self, tenant: str, encoding: Encoding) -> None:
        """End one use of a client."""
        self._kept[tenant, encoding].users -= 1

    async def close(self) -> None:
        """End every wait on every handle."""
        self._unlisten()
        for kept in self._kept.values():
            kept.polling.cancel()
        await asyncio.gather(*(kept.polling for kept in self._kept.values()), return_exceptions=True)
        for kept in self._kept.values():
            await kept.client.close()
        self._kept.clear()

    def _thin_out(self) -> None:
        idle = [key for key, kept in self._kept.items() if not kept.users]
        for key in idle[: max(0, len(self._kept) - MAX_IDLE + 1)]:
            self._kept.pop(key).polling.cancel()

    def _connection_changed(self, connected: bool) -> None:
        for kept in self._kept.values():
            kept.client.poller.connection_changed(connected)
