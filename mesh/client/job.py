"""The handle of one job: await it for its Result, iterate it for its output, cancel it.

Live events go into a small bounded inbox; a reader that is too slow for it loses nothing, because what it missed
is read back from the journal. A handle that nobody reads costs the same few kilobytes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable
from typing import Any, Protocol

from mesh.broker.connection import Subscription
from mesh.broker.journal import Entry, events_of
from mesh.client.assembly import Assembly, Restarted
from mesh.errors import BrokerError, DisconnectedError, MeshError, WaitTimeoutError
from mesh.protocol.messages import Delta, Event, Result

INBOX_EVENTS = 256  # live events kept for a reader; beyond, it reads the journal
PAGE_EVENTS = 200  # events read from the journal at once: what a slow reader holds at most


class Link(Protocol):
    """What a job needs of its client."""

    async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]: ...
    async def load_result(self, result: Result) -> Result: ...
    async def cancel_job(self, job: str, timeout_s: float) -> str: ...
    async def job_status(self, job: str, timeout_s: float) -> dict[str, Any]: ...
    def forget(self, job: "Job") -> None: ...


class Job:
    """See the module's docstring. Made by `Client.submit` and `Client.job`."""

    def __init__(self, link: Link, id: str, bound_s: float, is_new: bool) -> None:
        """`bound_s`: the longest that any wait on this handle lasts, in seconds from now."""
        self.id = id
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self.is_doubtful = not is_new  # nothing was heard of it yet: it may not exist
        self._has_missed = not is_new  # events before or between those in the inbox
        self._assembly = Assembly()
        self._sequence = 0  # of the last event read from the journal
        self._result: Result | None = None
        self._error: MeshError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._subscription: Subscription | None = None
        self.bound_s = self._loop.time() + bound_s  # loop time
        self.heard_s = self._loop.time()  # loop time of the last sign of life
        self.check_s = 0.0  # loop time of the next look at the store, kept by the client

    def __repr__(self) -> str:
        state = self._result.status if self._result is not None else "open"
        return f"<Job {self.id} {state}, {self._assembly.index} tokens shown, {len(self._inbox)} events waiting>"

    def __await__(self) -> Generator[Any, None, Result]:
        return self.result().__await__()

    async def result(self, timeout: float | None = None) -> Result:
        """The job's Result, whatever its status; `raise_for_status()` on it turns failures into errors.

        Args:
            timeout: seconds; without it, until a little after the job's deadline.

        Raises:
            WaitTimeoutError: no Result by then. The job goes on; `client.job(id)` finds it again.
            ResultNotFoundError: the job is unknown, or its Result is kept no longer.
        """
        if timeout is None:
            while self._result is None:
                await self._wait()
        else:
            try:
                async with asyncio.timeout(timeout):
                    while self._result is None:
                        await self._wait()
            except TimeoutError:
                raise WaitTimeoutError(
                    f"job {self.id} has no Result after {timeout:g} s; it goes on, and is found again by its id"
                ) from None
        self._result = await self._link.load_result(self._result)
        return self._result

    async def __aiter__(self) -> AsyncIterator[Delta | Restarted]:
        """The output as it is made: each token once, in order. Ends with the job, whatever its status.

        A `Restarted` among the deltas says that what was shown no longer stands.

        Raises:
            WaitTimeoutError, ResultNotFoundError: as `result`.
        """
        while True:
            while self._inbox and not self._has_missed:
                event = self._inbox.popleft()
                if isinstance(event, Result):
                    break  # `_result` holds it, and what was missed before it comes first
                for shown in self._assembly.take(event):
                    if isinstance(shown, Delta | Restarted):
                        yield shown
                    else:
                        self._has_missed = True
            if self._has_missed:
                for shown in self._shown(await self._catch_up()):
                    yield shown
                continue
            if self._result is not None:
                for shown in await self._complete(self._result):
                    yield shown
                return
            await self._wait()

    async def cancel(self, timeout: float = 10.0) -> str:
        """Ask for the job to stop. Returns its status: `cancelled`, or the one it already had, or `unknown`.

        Raises:
            UnavailableError: no worker is there to do it.
            BrokerTimeoutError: no answer within `timeout` seconds; the job may or may not stop.
        """
        return await self._link.cancel_job(self.id, timeout)

    async def status(self, timeout: float = 10.0) -> dict[str, Any]:
        """Where the job stands: `{"id", "status", "attempt", "index", "worker"}`, see PROTOCOL.

        Raises:
            UnavailableError, BrokerTimeoutError: as `cancel`.
        """
        return await self._link.job_status(self.id, timeout)

    def close(self) -> None:
        """Hear no more of the job, which goes on. Idempotent; done by itself once the Result is there."""
        if self._result is None and self._error is None:
            self._error = DisconnectedError(f"this handle of job {self.id} was closed; `client.job(id)` makes another")
            self._wake()
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self._link.forget(self)

    # Called by the client.

    def attach(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def heard(self, event: Event) -> None:
        """A live event; called for each, so it only files it."""
        self.heard_s = self._loop.time()
        self.is_doubtful = False
        if isinstance(event, Result):
            self.settled(event)
        if len(self._inbox) >= INBOX_EVENTS:
            self._has_missed = True
            self._inbox.clear()  # all of them are in the journal
        else:
            self._inbox.append(event)
        self._wake()

    def settled(self, result: Result) -> None:
        """The Result, live or from the store."""
        if self._result is None:
            self._result, self._error = result, None
            self.close()
            self._wake()

    def missed(self) -> None:
        """The connection was away: live events may be lost."""
        self._has_missed = True
        self._wake()

    def failed(self, error: MeshError) -> None:
        """No wait on this handle can succeed any more."""
        if self._result is None and self._error is None:
            self._error = error
            self.close()
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        """Until something changes; the client's watch sees to it that something does."""
        if self._error is not None:
            raise self._error
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if self._error is not None and self._result is None:
            raise self._error

    async def _catch_up(self) -> list[Event]:
        """The next events from the journal; clears the fault once its end is reached."""
        self._has_missed = False  # from here on, what is lost again counts again
        try:
            page = await self._link.read_journal(self.id, self._sequence, PAGE_EVENTS)
        except BrokerError:
            if self._result is None:
                await asyncio.sleep(0.2)  # NATS is away; the watch ends this when the bound is reached
                if self._error is not None:
                    raise self._error from None
                self._has_missed = True
            return []
        if page:
            self.is_doubtful = False
            self._sequence = page[-1].sequence
        if len(page) == PAGE_EVENTS:
            self._has_missed = True
        return events_of(page)

    def _shown(self, events: Iterable[Event]) -> list[Delta | Restarted]:
        """What the reader sees of events from the journal; a Result among them ends the wait for it."""
        shown: list[Delta | Restarted] = []
        for event in events:
            if isinstance(event, Result):
                self.settled(event)
            else:
                shown += [each for each in self._assembly.take(event) if isinstance(each, Delta | Restarted)]
        return shown

    async def _complete(self, result: Result) -> list[Delta | Restarted]:
        """What the reader has not seen when the Result is there."""
        self._result = result = await self._link.load_result(result)
        shown: list[Delta | Restarted] = []
        self._has_missed = result.text != self._assembly.text
        while self._has_missed:
            shown += self._shown(await self._catch_up())
        return shown + self._assembly.rest_of(result)
