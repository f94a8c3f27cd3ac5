"""The HTTP server of `/livez`, `/readyz` and `/metrics`, for the commands that run long.

Each connection gets one page, in bounded time and memory, so no request can hold up the process. The server has no
access control; by default it listens on loopback only.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from mesh.errors import ConfigError
from mesh.telemetry.pages import END_OF_HEAD, MOST_HEAD_BYTES, Page, PageRequest, encode, read_head, refusal

log = logging.getLogger("mesh.telemetry")

HEAD_S = 5.0  # for a request's head to arrive
ANSWER_S = 10.0  # for the page to be made and read
MOST_VISITORS = 64  # open connections; one more closes the oldest

Make = Callable[[], Awaitable[Page]]


class MonitoringServer:
    """Serves pages by their paths. Created by `opened`."""

    def __init__(self, pages: Mapping[str, Make]) -> None:
        self._pages = dict(pages)
        self._visitors: dict[asyncio.Task[None], None] = {}  # in the order of arrival
        self.port = 0

    @property
    def visitors(self) -> int:
        """The number of open connections."""
        return len(self._visitors)

    async def close(self) -> None:
        """Close all connections."""
        for task in self._visitors:
            task.cancel()
        await asyncio.gather(*self._visitors, return_exceptions=True)

    def visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection; called by asyncio's server."""
        while len(self._visitors) >= MOST_VISITORS:
            oldest = next(iter(self._visitors))
            del self._visitors[oldest]
            oldest.cancel()
        task = asyncio.create_task(self._serve(reader, writer), name="mesh-telemetry-visit")
        self._visitors[task] = None
        task.add_done_callback(lambda done: self._visitors.pop(done, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(HEAD_S + ANSWER_S):
                request = await self._read_request(reader)
                if request is None:
                    return
                page = request if isinstance(request, Page) else await self._page(request)
                writer.write(encode(page, isinstance(request, PageRequest) and request.is_head))
                await writer.drain()
                writer.write_eof()
                await reader.read(MOST_HEAD_BYTES)  # closing with unread input would reset the connection
        except (TimeoutError, OSError):
            pass  # the client is too slow, or gone
        finally:
            writer.transport.abort()

    async def _read_request(self, reader: asyncio.StreamReader) -> PageRequest | Page | None:
        """Return the request, or the page that refuses it; None: the client sent nothing."""
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(END_OF_HEAD)
        except asyncio.IncompleteReadError as error:
            return refusal(400, "the request ends too soon") if error.partial else None
        except asyncio.LimitOverrunError:
            return refusal(431, f"the request's head is longer than {MOST_HEAD_BYTES} bytes")
        except TimeoutError:
            return refusal(408, f"no request within {HEAD_S:g} s")
        return read_head(head)

    async def _page(self, request: PageRequest) -> Page:
        make = self._pages.get(request.path)
        if make is None:
            return refusal(404, f"the pages are {', '.join(sorted(self._pages))}")
        try:
            return await make()
        except Exception:  # the outermost frame of a connection: a page's bug must not end the process
            log.exception("%s could not be made", request.path, extra={"event": "page_failed"})
            return refusal(500, "internal error; the log has the cause")


@contextlib.asynccontextmanager
async def opened(host: str, port: int, pages: Mapping[str, Make]) -> AsyncIterator[MonitoringServer]:
    """Serve `pages` on `host` and `port` while the context is open.

    Args:
        port: 0 takes any free one; `MonitoringServer.port` has its number.

    Raises:
        ConfigError: the port cannot be listened on.
    """
    endpoint = MonitoringServer(pages)
    listener = _listen(host, port)
    endpoint.port = listener.getsockname()[1]
    try:
        server = await asyncio.start_server(endpoint.visited, sock=listener, limit=MOST_HEAD_BYTES)
    except BaseException:
        listener.close()
        raise
    try:
        yield endpoint
    finally:
        server.close()
        await endpoint.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=MOST_VISITORS)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(
            f"--telemetry-port {port} on {host} cannot be listened on: {why}; give another, or 0 for any free one",
            key="telemetry-port",
        ) from None
    # An engine process that is forked from this one must not keep the port after this one has ended.
    number = listener.fileno()
    inode = os.fstat(number).st_ino

    def let_go_in_child() -> None:
        with contextlib.suppress(OSError):
            if os.fstat(number).st_ino == inode:
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, number)  # not closed: the next open file would get the number
                os.close(nothing)

    os.register_at_fork(after_in_child=let_go_in_child)
    return listener
