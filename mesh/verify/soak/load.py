"""The clients of a soak: they submit, read, cancel and leave as planned.

Every client comes from `mesh.connect` and is used as in a program. The history records the outcome of each submit, each
piece that a reader got, and each answer to a cancel.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from mesh.broker.transport.options import ConnectOptions
from mesh.client.assembly import Restarted
from mesh.client.client import Client, connect
from mesh.client.job import Job
from mesh.client.requests import build_request
from mesh.clock import SYSTEM
from mesh.errors import BrokerError, MeshError, RefusedError
from mesh.protocol.messages import Delta
from mesh.protocol.subjects import Names
from mesh.verify.soak.history import CancelRequested, Requested, RunHistory, Shown, Submitted
from mesh.verify.soak.plan import TENANTS, PlannedJob

CLIENTS = 2  # for each tenant
SUBMIT_S = 40.0  # longer than any server is away
CANCEL_S = 10.0


@dataclass
class SoakLoad:
    """The clients of one soak. Call `submit_all`, then `wait_readers`."""

    history: RunHistory
    model: str
    clock: Callable[[], float]
    clients: dict[str, list[Client]]
    open_at_once: int  # most jobs with a waiting client, submits included
    _readers: set[asyncio.Task[None]] = field(default_factory=set)
    _failure: BaseException | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)  # a request was submitted, or a task failed
    submitted: int = 0

    async def submit_all(self, planned_jobs: Iterable[PlannedJob]) -> None:
        """Submit every request; return when the last is stored. The readers continue."""
        room = asyncio.Semaphore(self.open_at_once)
        for number, planned in enumerate(planned_jobs):
            await room.acquire()
            if self._failure is not None:
                raise self._failure
            task = asyncio.create_task(self._serve(planned, number), name=f"soak-{planned.job}")
            self._readers.add(task)
            task.add_done_callback(self._over)
            task.add_done_callback(lambda _: room.release())
        while self.submitted < len(self.history.asked) and self._failure is None:
            self._moved.clear()
            await self._moved.wait()

    async def wait_readers(self, timeout_s: float) -> int:
        """Wait until every reader knows its job's end; return how many still wait after `timeout_s`."""
        if self._readers:
            await asyncio.wait(set(self._readers), timeout=timeout_s)
        if self._failure is not None:
            raise self._failure
        return len(self._readers)

    async def leave(self) -> None:
        """Cancel the readers that still wait; the history records that they got no Result."""
        readers = list(self._readers)
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._readers.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()  # a bug of the soak itself
            self._moved.set()

    async def _serve(self, planned: PlannedJob, number: int) -> None:
        """Run one request and all its readers to their end."""
        clients = self.clients[planned.tenant]
        client = clients[number % len(clients)]
        fields = dict(planned.fields, id=planned.job)
        if planned.kind == "deadline":
            fields["deadline_unix_ms"] = SYSTEM.wall_unix_ms() + int(planned.after_s * 1000)
        request = build_request(None, fields)
        asked = Requested(
            planned.job, planned.tenant, planned.tier, planned.kind, planned.reading, request, self.clock()
        )
        self.history.asked[planned.job] = asked
        again = [clients[(number + 1) % len(clients)]] if planned.kind == "twice" else []
        try:
            jobs = await asyncio.gather(*(self._submit(each, asked) for each in (client, *again)))
        finally:
            self.submitted += 1
            self._moved.set()
        job = jobs[0] or next((each for each in jobs if each is not None), None)
        if job is None:
            return
        if planned.kind == "cancel":
            await asyncio.gather(self._cancel(job, planned.after_s), self._read(job, asked))
        elif planned.reading == "late":
            job.close()
            await asyncio.sleep(planned.after_s)
            await self._read(clients[(number + 1) % len(clients)].job(planned.job), asked)
        elif planned.reading == "live":
            await asyncio.gather(*(self._read(each, asked) for each in jobs if each is not None))
        elif number % 2:
            await self._read(job, asked, follows=False)
        else:
            job.close()  # `collect` reads its Result after the run

    async def _submit(self, client: Client, asked: Requested) -> Job | None:
        try:
            job = await client.submit(self.model, asked.request, tier=asked.tier, timeout=SUBMIT_S)
        except RefusedError as error:
            self.history.submitted.append(Submitted(self.clock(), asked.job, "refused", str(error)))
            return None
        except BrokerError as error:
            self.history.submitted.append(Submitted(self.clock(), asked.job, "unknown", str(error)))
            return None
        self.history.submitted.append(Submitted(self.clock(), asked.job, "ok"))
        return job

    async def _read(self, job: Job, asked: Requested, follows: bool = True) -> None:
        """Follow the output to its end, or await the Result alone."""
        pieces: list[Delta] = []
        restarts, result, fault = 0, None, ""
        try:
            if follows:
                async for piece in job:
                    if isinstance(piece, Restarted):
                        restarts += 1
                    else:
                        pieces.append(piece)
            result = await job
        except MeshError as error:
            fault = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            fault = "it still waited when the soak ended"
            raise
        finally:
            self.history.shown.append(Shown(asked.job, asked.reading, tuple(pieces), restarts, result, fault))

    async def _cancel(self, job: Job, after_s: float) -> None:
        await asyncio.sleep(after_s)
        asked_s = self.clock()
        answer = fault = ""
        try:
            answer = await job.cancel(CANCEL_S)
        except MeshError as error:
            fault = f"{type(error).__name__}: {error}"
        self.history.cancelled.append(CancelRequested(job.id, asked_s, self.clock(), answer, fault))


@contextlib.asynccontextmanager
async def clients_of(urls: tuple[str, ...], names: Names) -> AsyncIterator[dict[str, list[Client]]]:
    """Open CLIENTS clients for each tenant while the context is open; half of them use MessagePack."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, list[Client]] = {}
        for tenant in TENANTS:
            found[tenant] = []
            for number in range(CLIENTS):
                client = await stack.enter_async_context(
                    connect(
                        tenant=tenant,
                        namespace=names.ns,
                        encoding="msgpack" if number % 2 else "json",
                        options=ConnectOptions(servers=urls, name=f"soak-{tenant}-{number}"),
                    )
                )
                found[tenant].append(client)
        yield found
