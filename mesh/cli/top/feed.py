"""Looks at the mesh for `mesh top` and keeps what was seen: the whole mesh, the jobs of a queue, one job, an hour."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from mesh.audit.reader import AuditFilter, AuditLog
from mesh.broker.broker import Broker
from mesh.cli.jobs.job_action import lines
from mesh.cli.terminal import render
from mesh.cli.top.hour import MINUTE_MS, MINUTES, Hour
from mesh.cli.top.keys import JobScope, State
from mesh.cli.top.sight import JobPicture, Sight
from mesh.control.jobs.job_detail import JobDetailReader
from mesh.control.jobs.listing import JobLister, JobSelection
from mesh.control.jobs.tail import EventTail
from mesh.control.status import snapshot as status
from mesh.control.status.depth import Snapshot
from mesh.errors import MeshError
from mesh.job_key import JobKey
from mesh.protocol.messages import Delta, Event, LaterEvent, Result, Started
from mesh.protocol.subjects import check_token

LOOK_S = 1.0
TELL_S = 3.0  # between looks at one job's whole journal; a new attempt and the Result are looked at when heard
RATE_S = 3.5  # rates are over so long at most: workers tell every two seconds what they did
LIMIT_S = 10.0  # for one look
MOST_JOBS = 100  # of the view of jobs; each is read with its request, every second
MOST_ENTRIES = 20_000  # of the audit's last hour that are read at the start; the help says so
MOST_TEXT = 5_000  # characters of a job's output that are kept at least, the newest; twice as many at most


class Feed:
    """See the module's docstring. Looks while `running`; a fault of ours ends `over` with it."""

    def __init__(self, broker: Broker, first: Snapshot) -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._history = [(self._loop.time(), first)]
        self._sight = Sight(namespace=broker.names.ns, seen=first)
        self._hour = Hour()
        self._has_audit = False
        self._scope: JobScope | None = None  # whose jobs are listed
        self._key: JobKey | None = None  # of the job that is followed
        self._due = {name: asyncio.Event() for name in ("mesh", "jobs", "job")}  # a look before its time
        self._following: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.over: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<Feed of {self._broker.names.ns}, jobs of {self._scope}, job {self._key}>"

    @property
    def sight(self) -> Sight:
        """The newest readings."""
        seen_s, seen = self._history[-1]
        first_s, first = self._history[0]
        rates = status.rates(first, seen, self._broker.names) if first_s < seen_s else None
        models = {each.model for each in seen.queues} | {each.presence.model for each in seen.workers}
        hours = {name: self._hour.of(name, seen.unix_ms) for name in models} if self._has_audit else {}
        age_s = self._loop.time() - seen_s
        return replace(self._sight, seen=seen, rates=rates, age_s=age_s, hours=hours, clock=time.strftime("%H:%M:%S"))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for as long as the context lasts."""
        looks = (self._look, self._list, self._tell, self._hear)
        tasks = [self._start(each(), f"mesh-top-{each.__name__[1:]}") for each in looks]
        try:
            yield
        finally:
            following = [self._following] if self._following is not None else []
            for task in (*tasks, *following):
                task.cancel()
            await asyncio.gather(*tasks, *following, return_exceptions=True)
            self.over.cancel()

    def attend(self, state: State) -> None:
        """Look at what the state shows beside the mesh: the jobs of its scope, or its job."""
        scope = state.scope if state.view == "jobs" else None
        if scope != self._scope:
            self._scope = scope
            self._sight = replace(self._sight, jobs=(), jobs_total=0, jobs_trouble="", is_listed=False)
            self._due["jobs"].set()
        key = state.job if state.view == "job" else None
        if key == self._key:
            return
        self._key = key
        self._sight = replace(self._sight, job=JobPicture())
        self._due["job"].set()
        if self._following is not None:
            self._following.cancel()
        self._following = self._start(self._follow(key), "mesh-top-follow") if key is not None else None

    def hurry(self) -> None:
        """Look at everything now: something was changed."""
        for each in self._due.values():
            each.set()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.over.done():
            self.over.set_exception(error)

    async def _every(
        self, name: str, look: Callable[[], Awaitable[str]], every_s: float = LOOK_S
    ) -> AsyncIterator[str]:
        """Look now and then; yields why nothing was seen, "" after each look that succeeded."""
        due = self._due[name]
        while True:
            try:
                async with asyncio.timeout(LIMIT_S):
                    trouble = await look()
            except TimeoutError:
                trouble = "NATS does not answer"
            except MeshError as error:
                trouble = str(error)
            yield trouble
            self.on_change()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await due.wait()
            due.clear()

    async def _look(self) -> None:
        async def look() -> str:
            seen, now_s = await status.snapshot(self._broker), self._loop.time()
            self._history.append((now_s, seen))
            while len(self._history) > 2 and self._history[1][0] <= now_s - RATE_S:
                del self._history[0]
            return ""

        async for trouble in self._every("mesh", look):
            self._sight = replace(self._sight, trouble=trouble)

    async def _list(self) -> None:
        lister = JobLister(self._broker)

        async def look() -> str:
            scope = self._scope
            if scope is None:
                return ""
            selection = JobSelection(scope.model, scope.tier, scope.tenant)
            found = await lister.listing(selection, MOST_JOBS)
            if scope == self._scope:
                self._sight = replace(self._sight, jobs=found.jobs, jobs_total=found.total, is_listed=True)
            return ""

        async for trouble in self._every("jobs", look):
            self._sight = replace(self._sight, jobs_trouble=trouble)

    async def _tell(self) -> None:
        reader = JobDetailReader(self._broker)

        async def look() -> str:
            key = self._key
            if key is None:
                return ""
            told = await reader.tell(key)
            if key == self._key:
                picture = replace(self._sight.job, lines=lines(told, render.UNLIMITED))
                self._sight = replace(self._sight, job=picture)
            return ""

        async for trouble in self._every("job", look, TELL_S):
            self._sight = replace(self._sight, job=replace(self._sight.job, trouble=trouble))

    async def _follow(self, key: JobKey) -> None:
        """The output of one job as it comes, until it ends."""
        try:
            check_token("tenant", key.tenant)
            tail = EventTail(self._broker, key.tenant, check_token("id", key.id))
            with contextlib.closing(tail):
                async with contextlib.aclosing(tail.follow_job(key)) as events:
                    async for told in events:
                        if told is not None and key == self._key:
                            self._heard(told.event)
        except MeshError:
            return  # `_tell` says why nothing is known of it

    def _heard(self, event: Event | LaterEvent) -> None:
        text = self._sight.job.text
        match event:
            case Delta():
                text += event.text
                if len(text) > 2 * MOST_TEXT:
                    text = text[-MOST_TEXT:]
            case Started() if event.index == 0 and not event.closing:
                text = ""  # it begins, or begins anew
            case Result() if not text:
                text = event.text[-MOST_TEXT:]
            case _:
                pass
        if isinstance(event, Started | Result):
            self._due["job"].set()
        self._sight = replace(self._sight, job=replace(self._sight.job, text=text))
        self.on_change()

    async def _hear(self) -> None:
        """The jobs that ended in the last hour, from the audit, and those that end."""
        since_ms = self._history[0][1].unix_ms - MINUTES * MINUTE_MS
        log = AuditLog(self._broker, AuditFilter(event="ended", since_unix_ms=since_ms))
        while True:
            try:
                found, last = await log.newest(MOST_ENTRIES)
                break
            except MeshError:  # no audit yet, or NATS is away
                await asyncio.sleep(LOOK_S)
        self._has_audit = True
        self._hour.add(each.entry for each in found)
        self.on_change()
        async with contextlib.aclosing(log.follow(last)) as pages:
            async for page in pages:
                self._hour.add(each.entry for each in page)
