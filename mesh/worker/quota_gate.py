"""Checks a tenant's limits before a delivered job starts.

Requests can reach the queue without a front door, so each worker enforces the limits. A tenant without limits costs
one look into a table.
"""

import asyncio
import logging

from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.quota_slots import Slot, Slots
from mesh.broker.stores.quotas import Quotas
from mesh.errors import BrokerError, MeshError, RefusedError
from mesh.job_key import JobKey
from mesh.protocol.messages import Result
from mesh.protocol.timing import PRESENCE_BEAT_S

log = logging.getLogger("mesh.worker")

Stored = tuple[str, int]  # tenant and sequence of the request, which tell two requests of one id apart


class QuotaGate:
    """The limits and the running places of one worker's jobs."""

    def __init__(self, quotas: Quotas, slots: Slots) -> None:
        self._quotas = quotas
        self._slots = slots
        self._held: dict[Stored, Slot] = {}

    def is_open_to(self, tenant: str) -> bool:
        """Whether this tenant has no limits."""
        return self._quotas.of(tenant) is None

    async def refusal(self, delivery: Delivery, now_unix_ms: int) -> RefusedError | None:
        """The error that keeps a job that never ran from running; None: it may run.

        Without an answer from NATS about the tenant's usage, the job runs: accepted work is worth more than a count.
        """
        request = delivery.stored.request
        assert request is not None
        try:
            await self._quotas.begin(delivery.key, request, delivery.stored_unix_ms, now_unix_ms)
        except RefusedError as error:
            return error
        except BrokerError as error:
            log.warning("the limits of a job were not asked: %s", error, extra={"event": "quota_unasked"})
        return None

    async def take(self, job: Stored) -> bool:
        """Take one of the tenant's places; False: the tenant's other jobs hold them all, so try again later."""
        limits = self._quotas.of(job[0])
        if limits is None or limits.running is None or job in self._held:
            return True
        try:
            slot = await self._slots.take(job[0], limits.running)
        except MeshError as error:  # also a full bucket, which is no broker's fault, and passes
            log.debug("no place could be asked for: %s", error, extra={"event": "quota_unasked"})
            return False
        if slot is None:
            return False
        self._held[job] = slot
        return True

    def leave(self, job: Stored) -> None:
        """Release the job's place. Idempotent."""
        slot = self._held.pop(job, None)
        if slot is not None:
            self._slots.release(slot)

    async def spent(self, result: Result, now_unix_ms: int) -> None:
        """Add a job's tokens to its tenant's usage, once."""
        tokens = result.usage.prompt_tokens + result.usage.completion_tokens
        try:
            await self._quotas.spent(JobKey(result.tenant, result.id), tokens, now_unix_ms)
        except MeshError as error:
            log.warning(
                "%d tokens of job %s were not counted: %s", tokens, result.id, error, extra={"event": "quota_uncounted"}
            )

    async def prepare(self) -> None:
        """Read the limits before the first job."""
        await self._quotas.load()

    async def run(self) -> None:
        """Renew the places of running jobs until cancelled."""
        while True:
            await asyncio.sleep(PRESENCE_BEAT_S)
            await asyncio.gather(*(self._renew(job, slot) for job, slot in list(self._held.items())))

    def close(self) -> None:
        """Release every place, and stop reading changes of limits."""
        for job in list(self._held):
            self.leave(job)
        self._quotas.close()

    async def _renew(self, job: Stored, slot: Slot) -> None:
        try:
            await self._slots.renew(slot)
        except MeshError as error:
            log.debug("the place of request %d was not renewed: %s", job[1], error)
        if slot.is_lost:
            log.warning("request %d runs beyond its tenant's limit", job[1], extra={"event": "quota_overrun"})
            self._held.pop(job, None)
        elif self._held.get(job) is not slot:
            self._slots.release(slot)  # the job ended during the renewal, which took the place again
