"""Submits recorded requests again, to this mesh or another, at the recorded pace or another.

Requests are read when they are due, and open jobs are bounded. So memory grows only by a few numbers per ended request.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

from mesh.audit.reader import AuditFilter, AuditLog
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.recordings import Recording, TimeRange
from mesh.client.internal import JobHandle
from mesh.client.requests import build_request
from mesh.control.replay.plan import Outline, ReplayedRequest, ReplayMapping, ReplayReport, ask_of, due_s, request_now
from mesh.errors import BrokerError, MeshError, ModelNotFoundError, TopologyError
from mesh.gateway.clients import Clients
from mesh.protocol.codec import Encoding

log = logging.getLogger("mesh.control")

SUBMIT_S = 30.0  # for the target's queue to accept one request
ORIGINALS_MS = 900_000  # the audit is searched for originals up to this time after the last one was stored


@dataclass(frozen=True, slots=True)
class Pace:
    """Pace and bounds of a replay."""

    speed: float | None = 1.0  # factor of the recorded pace; None: as fast as the mesh accepts
    limit: int | None = None  # requests; None: all
    at_once: int = 256  # jobs open at the same time


class Replay:
    """One replay: `outline` counts, `run` submits, `compare` reads the originals' times."""

    def __init__(self, source: Broker, span: TimeRange, target: ReplayMapping, pace: Pace) -> None:
        self._broker = source
        self._recording = Recording(source)
        self._span = span
        self._target = target
        self._pace = pace
        self.report = ReplayReport()

    async def outline(self) -> Outline:
        """Counts the requests to submit. Reads the whole recording.

        Raises:
            InvalidRequestError, TopologyError, BrokerError: as `Recording.pages`.
        """
        found = Outline(self._span.tenant is None and self._span.model is None)
        async for page in self._recording.pages(self._span):
            for stored in page:
                if found.total == self._pace.limit:
                    return found
                found.note(stored, ask_of(stored, self._target))
        return found

    async def run(self, broker: Broker) -> None:
        """Submits the requests to the target mesh and waits for the jobs. Updates `report` meanwhile.

        When cancelled, it stops submitting; submitted jobs continue.

        Raises:
            BrokerError: the recording could not be read further; submitted jobs continue.
        """
        clients, gate = Clients(broker), asyncio.Semaphore(self._pace.at_once)
        try:
            async with asyncio.TaskGroup() as jobs:
                async for ask in self._due():
                    await gate.acquire()
                    jobs.create_task(self._one(clients, ask, gate), name=f"mesh-replay-{ask.sequence}")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await clients.close()

    async def compare(self) -> None:
        """Reads the originals' times from the audit, as far as it has them.

        Raises:
            BrokerError: NATS did not answer.
        """
        wanted = set(self.report.sequences)
        if not wanted:
            return
        since = self._span.since_unix_ms
        until = None if self._span.until_unix_ms is None else self._span.until_unix_ms + ORIGINALS_MS
        log_of = AuditLog(self._broker, AuditFilter(event="ended", since_unix_ms=since, until_unix_ms=until))
        with contextlib.suppress(TopologyError):  # without an audit the originals' times are unknown
            async for page in log_of.pages():
                for kept in page:
                    entry = kept.entry
                    if entry.sequence in wanted and entry.total_ms is not None and entry.status == "finished":
                        self.report.originals[entry.sequence] = (entry.total_ms, entry.first_token_ms)

    async def _due(self) -> AsyncIterator[ReplayedRequest]:
        """Yields each request when it is due."""
        began_s, first_unix_ms, count = self._broker.clock.monotonic_s(), 0, 0
        async for page in self._recording.pages(self._span):
            for stored in page:
                ask = ask_of(stored, self._target)
                if isinstance(ask, str):
                    continue
                if count == self._pace.limit:
                    return
                count += 1
                first_unix_ms = first_unix_ms or ask.at_unix_ms
                left_s = began_s + due_s(ask, first_unix_ms, self._pace.speed) - self._broker.clock.monotonic_s()
                if left_s > 0:
                    await asyncio.sleep(left_s)
                elif self._pace.speed is not None:
                    self.report.behind_s = max(self.report.behind_s, -left_s)
                yield ask

    async def _one(self, clients: Clients, ask: ReplayedRequest, gate: asyncio.Semaphore) -> None:
        """Submits one request and waits for its end."""
        job: JobHandle | None = None
        try:
            client = clients.get(ask.tenant, cast("Encoding", ask.encoding))
            request = build_request(request_now(ask, self._broker.clock.server_unix_ms()), {})
            job = await client.submit(ask.model, request, tier=ask.tier, timeout_s=SUBMIT_S)
            self.report.submitted += 1
            self.report.note(ask, await job.ended())
        except MeshError as error:
            if job is None:
                self.report.refused[error.code] += 1
            else:
                self.report.note(ask, None)
                log.debug("the outcome of job %s is unknown: %s", job.id, error)
        finally:
            if job is not None:
                job.close()
            gate.release()


async def check_models(broker: Broker, outline: Outline) -> None:
    """Raises for models that the target does not have.

    Raises:
        ModelNotFoundError: naming them.
    """
    missing = []
    for model in sorted({model for _, model, _ in outline.asks}):
        try:
            if not await topology.has_model(broker, model):
                missing.append(model)
        except BrokerError:
            return  # the target does not list models; each request is checked when submitted
    if missing:
        raise ModelNotFoundError(
            f"the target has no model {', '.join(missing)}; --to-model OLD=NEW submits to another", field="model"
        )
