"""Polls for jobs whose events stopped coming, and recovers events that a lost connection swallowed.

Live events reach a handle directly. For handles without events, the poller reads the store, at growing intervals.
Where a Result may have expired unseen, it looks up the outcome of the job. Reads are batched: a hundred thousand
waiting handles cost their client three hundredths of a core.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from mesh.broker.broker import Broker
from mesh.broker.stores.journal import OnEntry
from mesh.broker.stores.results import MOST_AT_ONCE, Stored
from mesh.client._job_state import JobBackend, JobHandle
from mesh.client.lookup import Lookup
from mesh.errors import (
    DisconnectedError,
    MeshError,
    ResultNotFoundError,
    UnauthorizedError,
    UnavailableError,
    VersionError,
)
from mesh.job_key import JobKey

log = logging.getLogger("mesh.client")

WATCH_S = 1.0
QUIET_S = 2.0  # without an event for so long, look at the store; then ever less often
MAX_QUIET_S = 30.0
MAX_INQUIRIES = 64  # at once: after a reconnect every open handle may need one
FEW = 8  # handles that are looked at one by one


class Poller:
    """The open handles of one client. Made and run by it."""

    def __init__(self, broker: Broker, tenant: str, inquiry: Lookup) -> None:
        self._tenant = tenant
        self._journal = broker.journal
        self._store = broker.results
        self._lookup = inquiry
        self._jobs: dict[JobHandle, None] = {}  # oldest first; several may be of one job
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_INQUIRIES)
        self._may_batch = True  # until this user is refused it: a tenant may read its Results one by one
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._jobs)

    def open(
        self, link: JobBackend, id: str, bound_s: float, is_new: bool, index: int = 0, on_entry: OnEntry | None = None
    ) -> JobHandle:
        """A handle that hears the job's events from now on, for `bound_s` seconds at most."""
        key = JobKey(self._tenant, id)
        job = JobHandle(link, key, bound_s, is_new, index)
        job.attach(self._journal.subscribe(key, job.heard, on_entry))
        job.look_s = self._loop.time() + QUIET_S
        self._jobs[job] = None
        return job

    def forget(self, job: JobHandle) -> None:
        """The handle is closed."""
        self._jobs.pop(job, None)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` beside the handles, until the client is closed. It raises nothing but MeshErrors."""
        task = self._loop.create_task(self._guarded(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Poll for the handles until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            now = self._loop.time()
            self._look_at([each for each in self._jobs if now >= max(each.look_s, each.heard_s + QUIET_S)])

    def connection_changed(self, connected: bool) -> None:
        """Listener of the connection: after a loss, every job may have missed events, its Result among them."""
        if connected:
            jobs = list(self._jobs)
            for job in jobs:
                job.missed()
                job.ask_s = self._loop.time() + QUIET_S  # the store first: it knows of most
            self._look_at(jobs)

    def look(self, job: JobHandle) -> None:
        """Ask the store for the job's Result; the next look is twice as far away."""
        self._looked(job)
        self._check(job)

    def _check(self, job: JobHandle) -> None:
        def found(stored: Stored) -> None:
            job.settled(stored.result)

        self._store.check(job.key, found)

    def _look_at(self, jobs: Sequence[JobHandle]) -> None:
        """As `look`, for all of them."""
        if len(jobs) <= FEW or not self._may_batch:
            for job in jobs:
                self.look(job)
            return
        for job in jobs:
            self._looked(job)
        self.spawn(self._read(jobs), "mesh-look")

    def _looked(self, job: JobHandle) -> None:
        """The store is asked now: see when to ask it again, and whether that is enough."""
        now = self._loop.time()
        job.look_s = now + min(MAX_QUIET_S, max(QUIET_S, 2 * (now - job.heard_s)))
        if job.is_doubtful and now >= job.ask_s:
            self.spawn(self._ask(job), f"mesh-ask-{job.id}")

    async def _read(self, jobs: Sequence[JobHandle]) -> None:
        """Ask the store for the Results of all of these, many at a time."""
        for start in range(0, len(jobs), MOST_AT_ONCE):
            waiting = [job for job in jobs[start : start + MOST_AT_ONCE] if not job.is_closed]
            if not waiting:
                continue
            try:
                found = await self._store.get_many(self._tenant, {job.id for job in waiting})
            except (UnauthorizedError, UnavailableError) as error:
                self._may_batch = not isinstance(error, UnauthorizedError)
                for job in jobs[start:]:
                    if not job.is_closed:
                        self._check(job)
                return
            for job in waiting:
                if job.id in found:
                    job.settled(found[job.id])

    async def _ask(self, job: JobHandle) -> None:
        """Say of a job that there is no such job, or none of ours, rather than wait for its Result."""
        async with self._room:
            if not job.is_doubtful or job.is_closed:
                return
            try:
                result = await self._lookup.ask(job.id, job.sequence)
            except (ResultNotFoundError, UnauthorizedError, VersionError) as error:
                if job.is_doubtful:
                    job.failed(error)
                return
        if result is not None:
            job.settled(result)
        else:
            job.is_doubtful = False

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except MeshError as error:
            log.debug("asked again with the next look: %s", error, extra={"event": "inquiry_failed"})
        except Exception:  # the outermost frame of a side task: the handle's own bound still holds
            log.exception("an inquiry failed", extra={"event": "inquiry_failed"})

    async def close(self) -> None:
        """End every wait: the client is being closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for job in list(self._jobs):
            job.failed(DisconnectedError(f"the client was closed while job {job.id} was open; the job goes on"))
