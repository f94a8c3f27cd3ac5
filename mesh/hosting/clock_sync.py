"""Keeps a broker's clock at the server's time."""

import asyncio
import contextlib

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.errors import MeshError

SYNC_S = 30.0  # in which a clock drifts by 3 ms at most


class ClockSync:
    """Measures the server's time now and then, until `close`; at once after the connection was away."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._due = asyncio.Event()
        self._unlisten = broker.connection.listen(self._connection_changed)
        self._task = asyncio.create_task(self._run(), name="mesh-clock-sync")

    async def close(self) -> None:
        """Measure no more. Idempotent."""
        self._unlisten()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _connection_changed(self, connected: bool) -> None:
        if connected:  # perhaps to another server
            self._due.set()

    async def _run(self) -> None:
        while True:
            self._due.clear()
            with contextlib.suppress(MeshError):  # the next measurement is soon enough
                await topology.stream_clock(self._broker, self._broker.names.requests_stream)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_S):
                    await self._due.wait()
