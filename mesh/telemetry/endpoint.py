"""The port of `/livez`, `/readyz` and `/metrics`: a small HTTP server. Opened by the commands that run for long.

Whoever connects gets one page and is done, in bounded time and memory: nothing that is sent here can hold up the
process, which has a mesh to serve. There is no access control, and so it listens on loopback unless told otherwise.
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

HEAD_S = 5.0  # for a request to arrive, however slowly
ANSWER_S = 10.0  # for the page to be made and taken
MOST_VISITORS = 64  # at once; the one that has kept us waiting longest goes

Make = Callable[[], Awaitable[Page]]


class MonitoringServer:
    """Serves pages by their paths. Made by `opened`."""

    def __init__(self, pages: Mapping[str, Make]) -> None:
        self._pages = dict(pages)
        self._visitors: dict[asyncio.Task[None], None] = {}  # in the order they came
        self.port = 0

    @property
    def visitors(self) -> int:
        """How many are served now."""
        return len(self._visitors)

    async def close(self) -> None:
        """End all visits."""
        for task in self._visitors:
            task.cancel()
        await asyncio.gather(*self._visitors, return_exceptions=True)

    def visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody connected."""
        while len(self._visitors) >= MOST_VISITORS:
            oldest = next(iter(self._visitors))
            del self._visitors[oldest]
            oldest.cancel()
        task = asyncio.create_task(self._serve(reader, writer), name="mesh-telemetry-visit")
        self._visitors[task] = None
        task.add_done_callback(lambda done: self._visitors.pop(done, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One visit. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(HEAD_S + ANSWER_S):
                asked = await self._asked(reader)
                if asked is None:
                    return
                page = asked if isinstance(asked, Page) else await self._page(asked)
                writer.write(encode(page, isinstance(asked, PageRequest) and asked.is_head))
                await writer.drain()
                writer.write_eof()
                await reader.read(MOST_HEAD_BYTES)  # closed with input unread, the page would be lost to a reset
        except (TimeoutError, OSError):
            pass  # who asked is too slow, or gone
        finally:
            writer.transport.abort()

    async def _asked(self, reader: asyncio.StreamReader) -> PageRequest | Page | None:
        """What is asked for; None: nothing."""
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

    async def _page(self, asked: PageRequest) -> Page:
        make = self._pages.get(asked.path)
        if make is None:
            return refusal(404, f"there are {', '.join(sorted(self._pages))}")
        try:
            return await make()
        except Exception:  # the outermost frame of a visit: a page that breaks must not take the process along
            log.exception("%s could not be made", asked.path, extra={"event": "page_failed"})
            return refusal(500, "internal error; the log says more")


@contextlib.asynccontextmanager
async def opened(host: str, port: int, pages: Mapping[str, Make]) -> AsyncIterator[MonitoringServer]:
    """Answer there for as long as the context lasts. `port` 0 takes any free one, see `Endpoint.port`.

    Raises:
        ConfigError: it cannot be listened on.
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
    # An engine process that is forked from this one must not keep the port when we are gone.
    number = listener.fileno()
    inode = os.fstat(number).st_ino

    def let_go_in_child() -> None:
        with contextlib.suppress(OSError):
            if os.fstat(number).st_ino == inode:
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, number)  # and not closed, since the number would be another's next
                os.close(nothing)

    os.register_at_fork(after_in_child=let_go_in_child)
    return listener
