"""Ends requests that no consumer will ever take: an unknown model or tier, a malformed subject.

The stream keeps every message on `<ns>.req.>`, so a request for a misspelt model would stay for ever. It republishes
a notice of every stored request. One process of the mesh reads each notice, and ends unroutable requests within
milliseconds.
"""

import asyncio
import logging

from mesh.audit.writer import Auditor
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.errors import InvalidRequestError, MeshError
from mesh.job_key import JobKey
from mesh.protocol import headers
from mesh.protocol.messages import ErrorInfo
from mesh.protocol.subjects import is_token
from mesh.reconcile.address_fault import address_fault
from mesh.reconcile.termination import Termination

log = logging.getLogger("mesh.reconcile")

QUEUE = "mesh-unroutable"
MAX_WAITING = 10_000  # unread notices; beyond, the next sweep finds the requests
SWEEP_S = 30.0  # between sweeps of the whole stream, for requests stored while no process watched


class Unroutable:
    """Watches the notices of one mesh, in one process."""

    def __init__(self, broker: Broker, host: str, audit: Auditor | None = None) -> None:
        """`host`: the name of a worker, or of another process."""
        self._broker = broker
        self._audit = audit
        self._termination = Termination(broker, host, "unserved", audit)
        self._served: set[tuple[bytes, bytes]] = set()  # (model, tier) that have consumers
        self._skip = len(broker.names.system("queued")) + 1
        self._waiting: asyncio.Queue[tuple[list[bytes], int]] = asyncio.Queue(MAX_WAITING)
        self._subscription = broker.connection.subscribe(broker.names.system("queued", ">"), self._heard, QUEUE)
        self._tasks = [
            asyncio.create_task(self._work(), name="mesh-unroutable"),
            asyncio.create_task(self._sweep(), name="mesh-unroutable-sweep"),
        ]

    async def close(self) -> None:
        """Stop watching."""
        self._subscription.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """Handle the notice of a stored request. The usual case is one look into a set."""
        parts = subject[self._skip :].split(b".")
        if self._is_served(parts):
            return
        sequence = headers.parse(header).get("Nats-Sequence", "")
        if sequence.isdigit() and not self._waiting.full():
            self._waiting.put_nowait((parts, int(sequence)))

    async def _work(self) -> None:
        while True:
            parts, sequence = await self._waiting.get()
            if not self._is_served(parts):
                await self._look(parts, sequence)

    async def _sweep(self) -> None:
        """Side task: check every subject that has requests. There are far fewer subjects than requests."""
        while True:
            try:
                for subject in await self._termination.queue.subjects():
                    await self._clear(subject)
            except MeshError as error:
                log.debug("the sweep for unroutable was put off: %s", error)
            await asyncio.sleep(SWEEP_S)

    async def _clear(self, subject: str) -> None:
        """End every request on a subject without a consumer."""
        parts, last = subject.encode().split(b".")[2:], 0
        while not self._is_served(parts):
            sequence = await self._termination.queue.oldest(subject)
            if sequence is None or sequence == last:
                return
            last = sequence
            await self._look(parts, sequence)

    def _is_served(self, parts: list[bytes]) -> bool:
        return len(parts) == 4 and (parts[0], parts[1]) in self._served

    async def _look(self, parts: list[bytes], sequence: int) -> None:
        tokens = [part.decode("utf-8", "replace") for part in parts]
        try:
            reason = await self._reason(tokens)
            if reason is None:
                self._served.add((parts[0], parts[1]))
            else:
                await self._end(sequence, tokens, reason)
        except MeshError as error:
            log.warning("a request was left for the next sweep: %s", error, extra={"event": "unroutable_left"})

    async def _reason(self, tokens: list[str]) -> ErrorInfo | None:
        """The reason that no worker will serve this address; None: a worker may."""
        fault = address_fault(tokens)
        if fault is not None:
            return fault
        model = tokens[0]
        if await topology.has_model(self._broker, model):
            return None
        return ErrorInfo(code="model_not_found", message=f"no model {model!r} is deployed on this mesh")

    async def _end(self, sequence: int, tokens: list[str], reason: ErrorInfo) -> None:
        stored = await self._termination.queue.get(sequence)
        if stored is None:
            return
        if stored.address is None or not is_token(stored.address.tenant):
            # No tenant, so no name under which a Result could be found: the subject itself is the fault.
            log.warning(
                "request %d on %s was removed: %s",
                sequence,
                ".".join(tokens)[:200],
                reason.message,
                extra={"event": "unroutable_removed"},
            )
            await self._termination.queue.remove(sequence)
            if self._audit is not None:
                self._audit.refused(InvalidRequestError(reason.message, field="subject"))
            return
        journal = self._termination.journal
        for subject in (journal.subject, journal.attempts_subject):
            if await journal.last(subject(JobKey(stored.address.tenant, stored.job))) is not None:
                await self._termination.queue.remove(sequence)  # its name is that of a job which is, or was, served
                return
        if reason.code == "model_not_found" and stored.error is not None:
            reason = ErrorInfo(code=stored.error.code, message=str(stored.error))
        await self._termination.end(stored, "failed", reason)
