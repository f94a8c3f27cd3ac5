"""Lists, redrives and drops dead letters.

A redrive removes the old Result, then the old notes and events, stores the request again, and removes the letter last.
If it is interrupted, the letter stays, and a repeat completes it. If two operators do it at once, the job runs once.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.audit.operator import Operator
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.deadletters import DeadLetter, DeadLetterFilter
from mesh.broker.stores.journal import Entry, events_of, notes_in
from mesh.control.deadletters.redrive import (
    AttemptSeen,
    Decision,
    RedrivePlan,
    Traces,
    attempts_of,
    decide,
    read_request,
    submission,
)
from mesh.errors import BrokerError, ConfigError, ProtocolError, ResultNotFoundError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Result
from mesh.protocol.subjects import is_token

SUBMIT_S = 10.0  # for the request queue to accept one request


@dataclass(frozen=True, slots=True)
class DeadLetterDetail:
    """The remaining records of a buried job, beside its letter."""

    attempts: list[AttemptSeen]  # empty once the events are gone
    result: Result | None  # the stored one; None: it is gone
    decision: Decision  # the action of a redrive


class DeadLetterService:
    """Lists, redrives and drops the dead letters of one mesh."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._letters = broker.dead_letters
        self._queue = broker.queue
        self._journal = broker.journal
        self._store = broker.results
        self._operator = Operator(broker)
        self._deployed: set[str] = set()  # models whose queue exists

    def pages(self, selection: DeadLetterFilter) -> AsyncIterator[list[DeadLetter]]:
        """Yields the selected letters, oldest first.

        Raises:
            InvalidRequestError, TopologyError, BrokerError: as `DeadLetters.pages`.
        """
        return self._letters.pages(selection)

    async def find(self, jobs: Collection[str], selection: DeadLetterFilter) -> list[DeadLetter]:
        """Returns the letters of these jobs, oldest first; a job may have several. Reads all selected letters.

        Raises:
            ResultNotFoundError: a job has none.
            ConfigError: several tenants have a job with the id, and no tenant is selected.
            InvalidRequestError, TopologyError, BrokerError: as `pages`.
        """
        wanted = set(jobs)
        found = [each async for page in self.pages(selection) for each in page if each.job in wanted]
        for job in jobs:
            tenants = sorted({each.address.tenant for each in found if each.job == job})
            if not tenants:
                raise ResultNotFoundError(
                    f"no dead letter of job {job}: it was not buried, or the letter was removed or is past its "
                    "7 days; `mesh dlq ls` lists all dead letters"
                )
            if len(tenants) > 1:
                raise ConfigError(
                    f"{job} is a dead letter of several tenants; choose one with --tenant: {', '.join(tenants)}",
                    key="tenant",
                )
        return found

    async def tell(self, letter: DeadLetter) -> DeadLetterDetail:
        """Returns the remaining records of the job.

        Raises:
            BrokerError: NATS did not answer.
        """
        decision = await self.plan(letter)
        if not letter.is_addressable:
            return DeadLetterDetail([], None, decision)
        entries, (_, _, result) = await asyncio.gather(self._read_journal(letter), self._read_result(letter))
        return DeadLetterDetail(attempts_of(events_of(entries), notes_in(entries)), result, decision)

    async def plan(self, letter: DeadLetter, has_deadline: bool = False) -> Decision:
        """Returns the action that `redrive` would take now. Changes nothing.

        Raises:
            BrokerError: NATS did not answer.
        """
        if not letter.is_addressable:
            return Decision("skip", "its subject or its job's id does not have the protocol's form")
        if await self._letters.get(letter.sequence) is None:
            return Decision("gone", "another operator redrove or removed it")
        request, _ = read_request(letter.body, letter.encoding)
        traces = await self._traces(letter)
        return decide(_burial(letter), request, traces, self._broker.clock.server_unix_ms(), has_deadline)

    async def redrive(self, letter: DeadLetter, deadline_s: float | None = None) -> Decision:
        """Runs the job again under its id, if possible. Returns the action taken.

        If it is interrupted, the letter stays, and a repeat completes it.

        Args:
            deadline_s: a new deadline, in seconds from now; None: the request's own.

        Raises:
            QuotaExceededError: the queue is full; the letter stays.
            BrokerError: NATS did not answer; the letter stays, unless its removal was all that was left to do.
        """
        decision = await self.plan(letter, deadline_s is not None)
        if decision.verb == "redrive":
            await self.clear_result(letter, decision)
            await self.clear_journal(letter, decision)
            await self.submit(letter, deadline_s)
            await self._operator.did("redriven", **_told(letter))
        if decision.verb in ("redrive", "settle"):
            await self._letters.remove(letter.sequence)
        return decision

    # The steps of a redrive, in their order. Each may be repeated without harm.

    async def clear_result(self, letter: DeadLetter, decision: Decision) -> None:
        """Removes the buried run's Result."""
        if decision.result_last:
            await self._store.remove(JobKey(letter.address.tenant, letter.job), decision.result_last)

    async def clear_journal(self, letter: DeadLetter, decision: Decision) -> None:
        """Removes the buried run's notes and events."""
        if decision.journal_last:
            await self._journal.purge(JobKey(letter.address.tenant, letter.job), decision.journal_last)

    async def submit(self, letter: DeadLetter, deadline_s: float | None) -> None:
        """Stores the request again, once."""
        at = letter.address
        deadline_unix_ms = None if deadline_s is None else self._broker.clock.server_unix_ms() + int(deadline_s * 1000)
        name = JobKey(at.tenant, letter.job)
        again = submission(_burial(letter), name, letter.body, letter.encoding, deadline_unix_ms)
        subject = self._broker.names.request(at.model, at.tier, at.tenant, again.affinity)
        ack = await self._queue.submit(
            subject, again.body, again.message_id, letter.encoding, letter.traceparent, SUBMIT_S
        )
        if ack.duplicate and ack.seq <= letter.request_sequence:
            raise BrokerError(
                f"job {letter.job} is too new: JetStream would drop it as a duplicate; its dead letter "
                "stays, so redrive it again in some minutes"
            )

    async def drop(self, letter: DeadLetter) -> bool:
        """Removes a dead letter. Returns whether it existed. The job's Result stays.

        Raises:
            BrokerError: NATS did not answer.
        """
        was_there = await self._letters.remove(letter.sequence)
        if was_there:
            await self._operator.did("dropped", **_told(letter))
        return was_there

    async def _traces(self, letter: DeadLetter) -> Traces:
        queued, is_deployed, journal, (sequence, unix_ms, result) = await asyncio.gather(
            self._queue.get(letter.request_sequence) if letter.request_sequence else _nothing(),
            self._is_deployed(letter.address.model),
            self._read_journal(letter),
            self._read_result(letter),
        )
        return Traces(
            is_queued=queued is not None and queued.job == letter.job,
            is_deployed=is_deployed,
            journal=[(entry.sequence, entry.event) for entry in journal],
            result=result,
            result_sequence=sequence,
            result_unix_ms=unix_ms,
        )

    async def _is_deployed(self, model: str) -> bool:
        if model not in self._deployed and await topology.has_model(self._broker, model):
            self._deployed.add(model)
        return model in self._deployed

    async def _read_journal(self, letter: DeadLetter) -> list[Entry]:
        """Returns the job's events and notes, in stream order."""
        journal, key = self._journal, JobKey(letter.address.tenant, letter.job)
        subjects = (journal.subject(key), journal.attempts_subject(key), journal.notes_subject(key))
        parts = await asyncio.gather(*(self._read_subject(subject) for subject in subjects))
        return sorted((entry for part in parts for entry in part), key=lambda entry: entry.sequence)

    async def _read_subject(self, subject: str) -> Sequence[Entry]:
        """Returns all messages of a subject; the newest comes from the leader, because a replica may lag."""
        entries = await self._journal.read(subject)
        last = await self._journal.last(subject)
        if last is not None and (not entries or entries[-1].sequence < last.sequence):
            entries.append(last)
        return entries

    async def _read_result(self, letter: DeadLetter) -> tuple[int, int, Result | None]:
        """Returns sequence and time of the value under the job's key (0: none), and the Result if it is one."""
        message = await self._store.read_last(JobKey(letter.address.tenant, letter.job))
        if message is None:
            return 0, 0, None
        try:
            result = codec.decode_result(message.body)
        except ProtocolError:  # a marker of `nats kv del`, which would block every later Result
            result = None
        return message.sequence, message.unix_ms, result


def _told(letter: DeadLetter) -> dict[str, Any]:
    """Returns the audit fields of a letter."""
    at = letter.address
    return {
        "tenant": at.tenant,
        "job": letter.job if letter.is_addressable else "",
        "model": at.model,
        "tier": at.tier,
        "sequence": letter.request_sequence,
        "code": letter.code if is_token(letter.code) else "",
    }


def _burial(letter: DeadLetter) -> RedrivePlan:
    return RedrivePlan(letter.request_sequence, letter.stored_unix_ms, letter.buried_unix_ms)


async def _nothing() -> None:
    return None
