"""A way between one worker and NATS that can be cut, slowed down and torn off.

A cut way loses nothing: as on a real network, what was sent meanwhile arrives when it heals, late and all at once.
That is the hard case, since a worker's publishes then come from the past. Made by run, one for each worker.
"""

import asyncio
import contextlib
from collections.abc import Sequence

CHUNK_BYTES = 65_536


class Proxy:
    """Listens on a port of loopback, and passes on to the first of `upstreams` that answers."""

    def __init__(self, upstreams: Sequence[int]) -> None:
        """`upstreams`: ports on loopback, the preferred first."""
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
        """Listen, on a free port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Let nothing through, and tell nobody: no end, no reset."""
        self._open.clear()

    def heal(self) -> None:
        """Let through what waits, and all that follows, without delay."""
        self._open.set()
        self.delay_s = 0.0

    def reset(self) -> None:
        """Tear every connection off, both ways."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Listen no more, and drop what is open."""
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
        """Pass on both ways until one of them ends; then both are torn off."""
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
