"""Passes a job's events on as they stand in the journal: each once, in order, none left out.

Each live event names the one before it, so a gap shows at once, and is filled from the journal. Nothing is kept
meanwhile: a requester costs the same however long its stream is. Used by control/frontdoor.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.broker.journal import Entry
from mesh.errors import BrokerError
from mesh.protocol.messages import Result

PAGE = 200  # events read at once
LAG_S = 0.05  # between looks at a replica that lags behind what was heard
PATIENCE_S = 5.0  # for the journal to show the last event of a job that has its Result

Read = Callable[[int, int], Awaitable[list[Entry]]]  # after which sequence, and how many at most
Send = Callable[[bytes], None]


class Follower:
    """One requester's way through a job's journal. `heard` is called for each live event, `finish` once."""

    def __init__(self, send: Send) -> None:
        """`send` may raise a BrokerError; the event is then read again."""
        self._send = send
        self._after = 0  # sequence of the last event passed on
        self._newest = 0  # of those heard and not passed on
        self._is_behind = False
        self._changed = asyncio.Event()
        self.is_over = False  # the Result was passed on
        self.sent = 0  # events

    def missed(self) -> None:
        """Live events may be lost, or were there before we listened."""
        self._is_behind = True
        self._changed.set()

    def heard(self, entry: Entry, previous: int) -> None:
        """A live event; called for each, so the usual case is one comparison and one publish."""
        self._newest = max(self._newest, entry.sequence)
        if not self._is_behind and previous == self._after:
            self._pass_on(entry)
        elif entry.sequence > self._after:
            self.missed()

    async def run(self, read: Read) -> None:
        """Fill gaps until cancelled, or until the Result was passed on."""
        while not self.is_over:
            await self._changed.wait()
            self._changed.clear()
            await self._catch_up(read)

    async def finish(self, read: Read, result: bytes) -> None:
        """The job has ended: pass on what is left, and `result` if the journal does not show it."""
        self._is_behind = True
        await self._catch_up(read)
        if not self.is_over:  # its events are kept no longer, or were never written
            self.is_over = True
            self._send(result)

    async def _catch_up(self, read: Read) -> None:
        """Read on until nothing that was heard is missing, or the journal has not shown it for PATIENCE_S."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + PATIENCE_S
        while self._is_behind and not self.is_over:
            try:
                page = await read(self._after, PAGE)
            except BrokerError:
                page = []
            before = self._after
            for entry in page:
                if entry.sequence > self._after and not self.is_over:
                    self._pass_on(entry)
            if self._after > before:
                end_s = loop.time() + PATIENCE_S
            elif self._after >= self._newest or loop.time() > end_s:
                self._is_behind = False
            else:
                await asyncio.sleep(LAG_S)

    def _pass_on(self, entry: Entry) -> None:
        try:
            if entry.event is not None:
                self._send(entry.body)
                self.sent += 1
        except BrokerError:
            self.missed()
            return
        self._after = entry.sequence
        self.is_over = isinstance(entry.event, Result)
        if self.is_over:
            self._changed.set()
