"""Keeps a broker's clock at the server's time."""

import asyncio
import contextlib

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.errors import MeshError

SYNC_S = 30.0  # a clock drifts by 3 ms at most in this time


class ClockSync:
    """Measures the server's time every SYNC_S and after each reconnect, until `close`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._due = asyncio.Event()
        self._unlisten = broker.connection.listen(self._connection_changed)
        self._task = asyncio.create_task(self._run(), name="mesh-clock-sync")

    async def close(self) -> None:
        """Stops measuring. Idempotent."""
        self._unlisten()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _connection_changed(self, connected: bool) -> None:
        if connected:  # possibly to another server, with another clock
            self._due.set()

    async def _run(self) -> None:
        while True:
            self._due.clear()
            with contextlib.suppress(MeshError):  # the next measurement repeats it
                await topology.stream_clock(self._broker, self._broker.names.requests_stream)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_S):
                    await self._due.wait()
