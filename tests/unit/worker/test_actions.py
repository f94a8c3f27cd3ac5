"""The actions that end an attempt reach NATS in their order, once, and only while the job is this worker's."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from mesh.broker.broker import Broker
from mesh.broker.stores.pulls import Leases
from mesh.broker.stores.quota_slots import Slots
from mesh.broker.stores.quotas import Quotas
from mesh.broker.stores.results import ResultStore
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import BrokerTimeoutError, ProtocolError, QuotaExceededError
from mesh.job_key import JobKey
from mesh.policies.retry import RetryPolicy
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import ErrorInfo, Note, Request, Result, Started, Usage
from mesh.protocol.timing import LEASE_GUARD
from mesh.signals import JobBuried, JobEnded, JobReturned, Signal
from mesh.worker import actions
from mesh.worker.actions import Actions, WorkerContext
from mesh.worker.attempt import Ack, Action, Announce, Close, Drop, MoveToDeadLetters, Nak, NoteAttempt, Store
from mesh.worker.death_check import DeathCheck
from mesh.worker.isolation import Isolation
from mesh.worker.lease import Lease
from mesh.worker.liveness import Liveness
from mesh.worker.publisher import LostError, Publisher, PublisherHooks, Streaming
from mesh.worker.quota_gate import QuotaGate
from tests.clocks import Hands
from tests.running import MODEL, wait_until
from tests.wire import Wire, delivery_of

KEY = JobKey("t", "j")
ACK_WAIT_S = 30.0
TTL_MS = 60_000
STARTED = Started(id="j", attempt=1, index=0, worker="w-1", unix_ms=1, sequence=17)
RESULT = Result(
    id="j", tenant="t", model=MODEL, status="finished", text="ab", attempts=1, usage=Usage(completion_tokens=2)
)
OTHERS = replace(RESULT, text="others", worker="w-2")
NOTE = Note(id="j", attempt=1, verdict="failed", reason="broken")
WHY = ErrorInfo(code="attempts_exhausted", message="given up after 3 attempts")
FINISHED: list[Action] = [Store(RESULT, TTL_MS), Announce(RESULT), Ack()]
STORED, ANNOUNCED, ACKED = "$KV.mesh_results.t.j", "mesh.out.t.j", "$JS.ACK."
DEAD, NOTED = "mesh.dead.", "mesh.sys.notes.t.j"


class Ending:
    """One attempt that has begun, on a delivery that a consumer gave out, and what it told its observer."""

    def __init__(self, broker: Broker, request: Request | None = None) -> None:
        self.broker = broker
        self.told: list[Signal] = []
        self.afterwork: list[Coroutine[Any, Any, None]] = []
        self.liveness = Liveness(broker, "w-1", lambda: None, lambda: None)
        self.lease = Lease(ACK_WAIT_S, broker.clock.uptime_s())
        self.delivery = delivery_of(request)
        self.actions = Actions(self._context(broker), self.delivery, self.lease)
        hooks = PublisherHooks(self.actions.is_held, lambda: None, lambda: None)
        self.publisher = Publisher(broker.journal, KEY, "json", Streaming(), hooks, broker.clock)

    def _context(self, broker: Broker) -> WorkerContext:
        return WorkerContext(
            worker="w-1",
            engine=SimulatorEngine(SimulatorSettings(model=MODEL)),
            clock=broker.clock,
            journal=broker.journal,
            store=broker.results,
            queue=broker.queue,
            leases=Leases(broker.connection),
            dead=broker.dead_letters,
            retry=RetryPolicy(),
            observer=self.told.append,
            shows_steps=False,
            streaming=Streaming(),
            gate=QuotaGate(Quotas(broker), Slots(broker, "w-1")),
            isolation=Isolation(),
            liveness=self.liveness,
            death_check=DeathCheck(broker.liveness, broker.journal),
            afterwards=self.afterwork.append,
            engine_died=lambda reason: None,
        )

    async def begin(self) -> "Ending":
        await self.liveness.begin(1000.0)
        self.publisher.begin(STARTED, 0)
        await self.publisher.wait_idle()
        return self

    async def perform(self, *given: Action) -> None:
        await self.actions.perform(given, self.publisher)

    async def stored(self) -> Result | None:
        found = await self.broker.results.get_written(KEY)
        return found.result if found is not None else None


@pytest.fixture
async def acks(peer: Broker) -> list[bytes]:
    """A consumer that confirms every ack; what was said to it."""
    said: list[bytes] = []

    def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        said.append(payload)
        if reply:
            peer.connection.publish(reply.decode(), b"")

    peer.connection.subscribe("$JS.ACK.MESH_REQUESTS.>", heard)
    await peer.connection.request("$JS.API.INFO")
    return said


@pytest.fixture
async def ending(broker: Broker, acks: list[bytes]) -> AsyncIterator[Ending]:
    made = await Ending(broker).begin()
    yield made
    made.publisher.close()


async def test_a_result_is_stored_before_it_is_announced_and_announced_before_the_ack(
    ending: Ending, wire: Wire
) -> None:
    """Each step waits until the server has confirmed the one before."""
    await ending.perform(*FINISHED)
    await wire.settle(ending.broker.connection)
    (store,), announce, (ack,) = wire.on(STORED), wire.on(ANNOUNCED)[-1], wire.on(ACKED)
    assert ack.payload == b"+ACK"
    assert wire.answer_to(store) < wire.place_of(announce)
    assert wire.answer_to(announce) < wire.place_of(ack)
    assert await ending.stored() == RESULT
    assert [type(each) for each in ending.told] == [JobEnded]


async def test_an_ack_is_confirmed_or_asked_for_again(
    broker: Broker, peer: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.broker.stores.pulls.ACK_TIMEOUT_S", 0.1)
    silent = peer.connection.subscribe("$JS.ACK.MESH_REQUESTS.>", lambda *message: None)
    await peer.connection.request("$JS.API.INFO")
    ending = await Ending(broker).begin()
    performing = asyncio.create_task(ending.perform(*FINISHED))
    await wait_until(lambda: len(wire.on(ACKED)) >= 2)
    assert not performing.done()
    peer.connection.subscribe(
        "$JS.ACK.MESH_REQUESTS.>", lambda subject, reply, *rest: peer.connection.publish(reply.decode(), b"")
    )
    silent.close()
    await performing
    assert [type(each) for each in ending.told] == [JobEnded]


async def test_after_the_end_the_job_is_not_this_workers_any_more(ending: Ending) -> None:
    await ending.perform(*FINISHED)
    assert not ending.actions.is_held()
    with pytest.raises(LostError):
        await ending.perform(Nak(0.0))


async def test_without_the_lease_nothing_is_done(ending: Ending, wire: Wire, hands: Hands) -> None:
    hands.advance(ACK_WAIT_S * (1 - LEASE_GUARD))
    for action in (*FINISHED, Nak(0.0), NoteAttempt(NOTE), MoveToDeadLetters(WHY, 3), Close(STARTED)):
        with pytest.raises(LostError):
            await ending.perform(action)
    await wire.settle(ending.broker.connection)
    assert wire.subjects(STORED, ACKED, DEAD, NOTED, ANNOUNCED) == []
    assert ending.told == []


async def test_a_machine_that_slept_has_lost_its_leases(ending: Ending, wire: Wire, hands: Hands) -> None:
    hands.sleep_machine(ACK_WAIT_S)
    with pytest.raises(LostError):
        await ending.perform(*FINISHED)
    await wire.settle(ending.broker.connection)
    assert wire.subjects(STORED, ACKED, ANNOUNCED) == []


async def test_a_lease_that_ends_between_two_actions_ends_them(
    broker: Broker, acks: list[bytes], hands: Hands, wire: Wire
) -> None:
    class Slow(ResultStore):
        async def create(self, key: JobKey, body: bytes, ttl_ms: int, timeout_s: float = 5.0) -> bool:
            created = await super().create(key, body, ttl_ms, timeout_s)
            hands.advance(ACK_WAIT_S)
            return created

    broker.__dict__["results"] = Slow(broker)
    ending = await Ending(broker).begin()
    with pytest.raises(LostError):
        await ending.perform(*FINISHED)
    assert acks == []
    assert [each.event for each in await broker.journal.read(broker.journal.subject(KEY))] == [STARTED]
    ending.publisher.close()


async def test_the_result_that_was_there_first_counts(ending: Ending, peer: Broker, acks: list[bytes]) -> None:
    """Another worker's, or whoever ended the job meanwhile: this one's is announced nowhere."""
    assert await peer.results.create(KEY, codec.encode(OTHERS), TTL_MS)
    await ending.perform(*FINISHED)
    assert await ending.stored() == OTHERS
    assert ending.actions.result == OTHERS
    last = await peer.journal.last(peer.journal.subject(KEY))
    assert last is not None
    assert last.event == OTHERS
    assert acks == [b"+ACK"]


async def test_no_result_is_stored_while_the_server_has_not_confirmed_that_the_worker_lives(
    ending: Ending, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The job may have been given away, and run elsewhere, while the connection was lost."""
    monkeypatch.setattr(actions, "RETRY_S", 0.01)
    caplog.set_level(logging.DEBUG, "mesh.worker")
    ending.liveness.disturbed()
    performing = asyncio.create_task(ending.perform(*FINISHED))
    await wait_until(lambda: caplog.text.count("trying again") >= 3)
    assert await ending.stored() is None
    living = asyncio.create_task(ending.liveness.run(60.0))
    await performing
    assert await ending.stored() == RESULT
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)


async def test_a_worker_that_is_never_confirmed_gives_up_when_its_lease_ends(
    ending: Ending, hands: Hands, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(actions, "RETRY_S", 0.01)
    caplog.set_level(logging.DEBUG, "mesh.worker")
    ending.liveness.disturbed()
    performing = asyncio.create_task(ending.perform(*FINISHED))
    await wait_until(lambda: "trying again" in caplog.text)
    hands.advance(ACK_WAIT_S)
    with pytest.raises(LostError):
        await asyncio.wait_for(performing, 5)
    assert await ending.stored() is None


@pytest.mark.parametrize("error", [BrokerTimeoutError("no answer"), QuotaExceededError("the account is full")])
async def test_what_passes_is_tried_again(
    broker: Broker, acks: list[bytes], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "RETRY_S", 0.01)

    class Troubled(ResultStore):
        tries = 0

        async def create(self, key: JobKey, body: bytes, ttl_ms: int, timeout_s: float = 5.0) -> bool:
            self.tries += 1
            if self.tries < 4:
                raise error
            return await super().create(key, body, ttl_ms, timeout_s)

    store = broker.__dict__["results"] = Troubled(broker)
    ending = await Ending(broker).begin()
    await ending.perform(*FINISHED)
    assert store.tries == 4
    assert await ending.stored() == RESULT
    ending.publisher.close()


async def test_what_does_not_pass_is_not_tried_again(ending: Ending) -> None:
    tries = 0

    async def broken() -> None:
        nonlocal tries
        tries += 1
        assert tries == 1, "it was tried again"
        raise ProtocolError("that is no answer")

    with pytest.raises(ProtocolError):
        await ending.actions.until_answered(broken)


async def test_a_result_of_which_the_answer_was_lost_is_its_own(broker: Broker, acks: list[bytes]) -> None:
    class Lossy(ResultStore):
        is_lost = False

        async def create(self, key: JobKey, body: bytes, ttl_ms: int, timeout_s: float = 5.0) -> bool:
            created = await super().create(key, body, ttl_ms, timeout_s)
            if not self.is_lost:
                self.is_lost = True
                raise BrokerTimeoutError("no answer")
            return created

    broker.__dict__["results"] = Lossy(broker)
    ending = await Ending(broker).begin()
    await ending.perform(*FINISHED)
    assert ending.actions.result == RESULT
    assert [each.event for each in await broker.journal.read(broker.journal.subject(KEY))] == [STARTED, RESULT]
    ending.publisher.close()


async def test_a_result_is_not_announced_nor_acknowledged_where_another_wrote_since(
    ending: Ending, peer: Broker, acks: list[bytes]
) -> None:
    """Whoever wrote finds the Result in the store, and ends the job."""
    taken = Started(id="j", attempt=2, index=0, worker="w-2", unix_ms=2, sequence=17)
    await peer.journal.append(peer.journal.subject(KEY), codec.encode(taken), ending.publisher.last)
    with pytest.raises(LostError):
        await ending.perform(*FINISHED)
    assert await ending.stored() == RESULT
    assert acks == []


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_result_that_another_has_announced_is_acknowledged(
    ending: Ending, peer: Broker, acks: list[bytes], encoding: Encoding
) -> None:
    """Whoever ended the job encodes as it likes, so its event need not be the same bytes."""
    await peer.journal.append(peer.journal.subject(KEY), codec.encode(RESULT, encoding), ending.publisher.last)
    await ending.perform(*FINISHED)
    assert acks == [b"+ACK"]


async def test_a_dead_letter_is_kept_before_the_result_says_so(ending: Ending, wire: Wire) -> None:
    failed = replace(RESULT, status="failed", error=WHY)
    await ending.perform(MoveToDeadLetters(WHY, 3), Store(failed, TTL_MS), Announce(failed), Ack())
    await wire.settle(ending.broker.connection)
    (letter,), (store,) = wire.on(DEAD), wire.on(STORED)
    assert letter.payload == ending.delivery.stored.body
    assert wire.answer_to(letter) < wire.place_of(store)
    assert [type(each) for each in ending.told] == [JobBuried, JobEnded]


async def test_a_note_is_kept_before_the_job_is_handed_back(ending: Ending, wire: Wire) -> None:
    await ending.perform(NoteAttempt(NOTE), Nak(0.5))
    await wire.settle(ending.broker.connection)
    (note,), (nak,) = wire.on(NOTED), wire.on(ACKED)
    assert wire.answer_to(note) < wire.place_of(nak)
    assert nak.payload == b'-NAK {"delay":500000000}'
    assert ending.told == [JobReturned(ending.delivery.ref, "retry")]


async def test_a_job_is_handed_back_once(ending: Ending, acks: list[bytes], wire: Wire) -> None:
    await ending.perform(Nak(0.0))
    with pytest.raises(LostError):
        await ending.perform(Nak(0.0))
    await wire.settle(ending.broker.connection)
    assert [each.payload for each in wire.on(ACKED)] == [b"-NAK"]
    assert ending.told == [JobReturned(ending.delivery.ref, "drain")]
    assert ending.lease.is_lost


async def test_a_job_that_is_anothers_is_dropped_without_a_word(ending: Ending, wire: Wire) -> None:
    with pytest.raises(LostError):
        await ending.perform(Drop(), Ack())
    await wire.settle(ending.broker.connection)
    assert wire.on(ACKED) == []


async def test_a_journal_is_closed_before_the_result_of_a_job_that_did_not_run_to_its_end(
    ending: Ending, wire: Wire
) -> None:
    closing = replace(STARTED, attempt=2, closing=True)
    expired = replace(RESULT, status="expired")
    await ending.perform(Close(closing), Store(expired, TTL_MS), Announce(expired), Ack())
    await wire.settle(ending.broker.connection)
    close, announce = wire.on(ANNOUNCED)
    (store,) = wire.on(STORED)
    assert codec.decode_event(close.payload) == closing
    assert wire.answer_to(close) < wire.place_of(store)
    assert wire.answer_to(store) < wire.place_of(announce)


async def test_where_the_journal_cannot_be_closed_no_result_is_stored(ending: Ending, peer: Broker) -> None:
    taken = Started(id="j", attempt=2, index=0, worker="w-2", unix_ms=2, sequence=17)
    await peer.journal.append(peer.journal.subject(KEY), codec.encode(taken), ending.publisher.last)
    with pytest.raises(LostError):
        await ending.perform(Close(replace(STARTED, attempt=2, closing=True)), *FINISHED)
    assert await ending.stored() is None


async def test_a_worker_that_lost_a_job_and_lives_says_so(ending: Ending, broker: Broker) -> None:
    """Else the attempt would speak against the job, as one that killed its worker does."""
    ending.actions.give_up("lost")
    await ending.actions.survive(1)
    (entry,) = await broker.journal.read(broker.journal.notes_subject(KEY))
    note = codec.decode_note(entry.body)
    assert note is not None
    assert (note.attempt, note.verdict, note.reason) == (1, "returned", "lost")


async def test_what_is_said_after_a_redelivery_is_said_of_that_delivery(ending: Ending, wire: Wire) -> None:
    """A server that crashed gave the job to this worker once more; the first delivery's subject is stale."""
    newer = delivery_of(ack_subject="$JS.ACK.MESH_REQUESTS.simulator-standard-0.2.17.9.1.0")
    ending.actions.redelivered(newer)
    await ending.perform(*FINISHED)
    await wire.settle(ending.broker.connection)
    assert [each.subject for each in wire.on(ACKED)] == [newer.ack_subject]
