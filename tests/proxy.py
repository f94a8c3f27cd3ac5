"""A TCP proxy between a client and nats-server that fails on demand: cuts, or goes silent without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes between its port and `port`, until told otherwise."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()  # cleared: what the server says is held back
        self._answers.set()
        self._server: asyncio.Server | None = None
        self.connections = 0  # made so far

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    def cut(self) -> None:
        """Drop every connection, and what was held back on it; new ones pass."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._answers.set()

    def hold_answers(self) -> None:
        """From now on the server is not heard, on any connection, until `cut` or `release`."""
        self._answers.clear()

    def release(self) -> None:
        """Pass on what was held back."""
        self._answers.set()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, upstream}
        for source, sink, is_answer in ((reader, upstream, False), (upstream_reader, writer, True)):
            task = asyncio.create_task(self._pass_on(source, sink, is_answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if is_answer:
                    await self._answers.wait()
                sink.write(data)
                await sink.drain()
        self._writers.discard(sink)
        sink.transport.abort()


@contextlib.asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy to a port of this machine."""
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
