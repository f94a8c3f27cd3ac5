"""A TCP proxy between one worker and NATS that can be cut, slowed down and reset.

A cut proxy loses no data: as on a real network, the data sent meanwhile arrives late and all at once when it heals.
That is the hard case, because a worker's publishes then come from the past. Each worker has its own proxy.
"""

import asyncio
import contextlib
from collections.abc import Sequence

CHUNK_BYTES = 65_536


class Proxy:
    """Listens on a loopback port, and forwards to the first of `upstreams` that answers."""

    def __init__(self, upstreams: Sequence[int]) -> None:
        """Create a proxy. `upstreams`: ports on loopback, the preferred one first."""
        self._upstreams = tuple(upstreams)
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay_s = 0.0  # added to each piece, each way
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Hold back all data, without closing or resetting a connection."""
        self._open.clear()

    def heal(self) -> None:
        """Forward the held data and all later data, without delay."""
        self._open.set()
        self.delay_s = 0.0

    def reset(self) -> None:
        """Reset every connection on both sides."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Stop listening, and drop the open connections."""
        if self._server is not None:
            self._server.close()
        self.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._open.wait()
            upstream = await self._connect()
            if upstream is not None:
                self._writers.add(upstream[1])
                await self._join((reader, writer), upstream)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._upstreams:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port, limit=CHUNK_BYTES)
        return None

    async def _join(
        self,
        one: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Forward both ways until one side ends; then reset both."""
        ways = [asyncio.create_task(self._pass(one[0], other[1])), asyncio.create_task(self._pass(other[0], one[1]))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers.discard(other[1])
            other[1].transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                await self._open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(piece)
                await writer.drain()
