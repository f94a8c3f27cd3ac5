"""Whatever NATS answers and whenever the lease ends: no ack before the Result, one Result, one settlement."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.broker.stores.deadletters import DeadLetters
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.journal import Entry, Journal
from mesh.broker.stores.pulls import Leases
from mesh.broker.stores.results import ResultStore, Stored
from mesh.broker.transport.calls import OnReply
from mesh.broker.transport.mapping import FULL, WRONG_LAST_SEQUENCE
from mesh.engines.base import Engine
from mesh.errors import (
    DisconnectedError,
    EngineFailedError,
    MeshError,
    QuotaExceededError,
    SequenceError,
    TooLargeError,
)
from mesh.job_key import JobKey, JobRef
from mesh.policies.retry import RetryPolicy
from mesh.protocol import codec
from mesh.protocol.messages import ErrorInfo, Event, Request, Result, Usage
from mesh.protocol.outcome import JobFacts
from mesh.protocol.subjects import Names
from mesh.signals import JobEnded, Signal
from mesh.worker.actions import Actions, WorkerContext
from mesh.worker.attempt import Ack, Action, Announce, Attempt, Nak, Store
from mesh.worker.isolation import Isolation
from mesh.worker.lease import Lease
from mesh.worker.liveness import Liveness
from mesh.worker.publisher import LostError, Publisher, PublisherHooks, Streaming
from tests.property.attempts import NOW, RESULT, begin, journals
from tests.simulated import FATES, Line, pass_time, run_simulated, simulated_clock
from tests.wire import delivery_of

KEY = JobKey("t", "j")
ACK_WAIT_S = 10.0
OTHERS = Result(id="j", tenant="t", model="m", status="finished", text="others", worker="v")
TAKEN = b'{"type":"started","id":"j","attempt":99,"index":0,"worker":"v","unix_ms":1}'


class World:
    """What NATS holds, what this worker did to it, and when its lease ends."""

    def __init__(self, data: DataObject, actions: tuple[Action, ...]) -> None:
        self.line = Line(data.draw(FATES, "fates"))
        self.lease = Lease(ACK_WAIT_S, 0.0)
        self.clock = simulated_clock()
        self.result: bytes | None = None
        self.objects: set[str] = set()
        self.journal: dict[str, list[tuple[int, bytes]]] = {}
        self.sequence = 0
        self.attempted: set[bytes] = set()  # Results that this worker tried to store
        self.settled: list[str] = []
        self.told: list[Signal] = []
        self.effects_left = data.draw(st.none() | st.integers(0, 8), "effects before the lease is lost")
        self.most_bytes = data.draw(st.sampled_from([1_000_000, 10]), "largest message")
        self.takes_objects = data.draw(st.booleans(), "takes objects")
        self.is_ack_confirmed = data.draw(st.booleans(), "ack confirmed")
        self.is_nak_sent = data.draw(st.booleans(), "nak sent")
        self.sureness = iter(data.draw(st.lists(st.booleans(), max_size=6), "confirmed"))
        self.interferes_s = data.draw(st.sampled_from([0.0, 0.05, 1.5, 3.0, 20.0]), "interference")
        self.others = data.draw(st.sets(st.sampled_from(["stores", "writes"])), "others")
        self.is_sure = False  # and was asked just now
        self.faults: list[str] = []
        self.has_store = any(isinstance(action, Store) for action in actions)
        self.has_announce = any(isinstance(action, Announce) for action in actions)
        if self.has_announce and not self.has_store:
            self.result = codec.encode(RESULT)  # the attempt found it

    def act(self) -> None:
        """This worker is about to change something; the lease may end right after."""
        self.expect(self.lease.is_held(self.clock.uptime_s()), "an effect without the lease")
        self.expect(not self.settled, "an effect after the delivery was settled")
        if self.effects_left is not None:
            self.effects_left -= 1
            self.lease.is_lost = self.effects_left < 0

    def expect(self, condition: bool, fault: str) -> None:
        """Noted, not raised: a publisher or a task would keep it to itself."""
        if not condition:
            self.faults.append(fault)

    def create(self, body: bytes) -> bool:
        if self.result is not None:
            return False
        name = codec.decode_result(body).object
        self.expect(not name or name in self.objects, "a Result that names an object which is not there")
        self.result = body
        return True

    def append(self, subject: str, body: bytes, last: int | None) -> int:
        entries = self.journal.setdefault(subject, [])
        if last is not None and last != (entries[-1][0] if entries else 0):
            raise SequenceError("another wrote", last=entries[-1][0] if entries else 0)
        self.sequence += 1
        entries.append((self.sequence, body))
        return self.sequence

    def settle(self, how: str) -> None:
        self.act()
        self.settled.append(how)


class Bucket(ResultStore):
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def max_bytes(self) -> int:
        return self._world.most_bytes

    async def create(self, key: JobKey, body: bytes, ttl_ms: int, timeout_s: float = 5.0) -> bool:
        self._world.act()
        self._world.expect(self._world.is_sure, "a Result was stored by a worker that may be taken for dead")
        self._world.is_sure = False
        self._world.attempted.add(body)
        return await self._world.line.carry(lambda: self._world.create(body))

    async def get_written(self, key: JobKey) -> Stored | None:
        body = await self._world.line.carry(lambda: self._world.result)
        return Stored(codec.decode_result(body), body) if body is not None else None

    async def put_object(self, name: str, body: bytes) -> None:
        self._world.act()
        if not self._world.takes_objects:
            raise TooLargeError("no room for such an object")
        await self._world.line.carry(lambda: self._world.objects.add(name))


class Books(Journal):
    def __init__(self, world: World) -> None:
        self._world = world
        self._names = Names()
        self._answers: set[asyncio.Task[None]] = set()

    @property
    def max_bytes(self) -> int:
        return 1_000_000

    def publish(self, subject: str, body: bytes, last: int, on_reply: OnReply, timeout_s: float) -> None:
        self._world.act()
        if isinstance(said := codec.decode_event(body), Result):
            stored = self._world.result
            self._world.expect(stored is not None, "a Result was announced before it was stored")
            is_it = stored is None or said == codec.decode_result(stored)
            self._world.expect(is_it, "another Result was announced")

        async def answer() -> None:
            try:
                sequence = await self._world.line.carry(lambda: self._world.append(subject, body, last))
            except SequenceError:
                on_reply(None, b"", b'{"error":{"code":400,"err_code":%d}}' % WRONG_LAST_SEQUENCE[0])
            except QuotaExceededError:
                on_reply(None, b"", b'{"error":{"code":400,"err_code":%d}}' % FULL[0])
            except MeshError as error:
                on_reply(error, b"", b"")
            else:
                on_reply(None, b"", b'{"stream":"S","seq":%d}' % sequence)

        self._answers.add(asyncio.create_task(answer()))

    async def append(self, subject: str, body: bytes, last: int | None = None) -> None:
        self._world.act()
        await self._world.line.carry(lambda: self._world.append(subject, body, last))

    async def last(self, subject: str) -> Entry | None:
        entries = await self._world.line.carry(lambda: list(self._world.journal.get(subject, [])))
        if not entries:
            return None
        sequence, body = entries[-1]
        event = codec.decode_event(body)
        return Entry(sequence, cast(Event | None, event), body)


class Settlements(Leases):
    def __init__(self, world: World) -> None:
        self._world = world

    async def ack(self, delivery: Delivery) -> bool:
        self._world.settle("ack")
        is_known = self._world.result is not None
        self._world.expect(is_known or not self._world.has_store, "an ack before the Result was stored")
        told = [codec.decode_event(body) for _, body in self._world.journal.get(Names().events(KEY), [])]
        is_told = any(isinstance(event, Result) for event in told)
        self._world.expect(is_told or not self._world.has_announce, "an ack before the Result was announced")
        await asyncio.sleep(0)
        return self._world.is_ack_confirmed

    def hand_back(self, ack_subject: str, delay_s: float = 0.0) -> None:
        self._world.settle("nak")
        if not self._world.is_nak_sent:
            raise DisconnectedError("no connection")


class Graves(DeadLetters):
    def __init__(self, world: World) -> None:
        self._world = world

    async def bury(self, delivery: Delivery, reason: ErrorInfo, attempts: int) -> None:
        self._world.act()
        await self._world.line.carry(lambda: None)


class Doubtful(Liveness):
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def is_confirmed(self) -> bool:
        self._world.is_sure = next(self._world.sureness, True)
        return self._world.is_sure


def context_of(world: World) -> WorkerContext:
    """The stores of one world; an Actions uses nothing else."""
    unused = cast(Any, None)
    return WorkerContext(
        worker="w",
        engine=cast(Engine, unused),
        clock=world.clock,
        journal=Books(world),
        store=Bucket(world),
        queue=unused,
        leases=Settlements(world),
        dead=Graves(world),
        retry=RetryPolicy(),
        observer=world.told.append,
        shows_steps=False,
        streaming=Streaming(),
        gate=unused,
        isolation=Isolation(),
        liveness=Doubtful(world),
        death_check=unused,
        afterwards=unused,
        engine_died=unused,
    )


async def interfere(world: World, subject: str) -> None:
    """Another worker takes the job over, or ends it, at any moment."""
    await pass_time(world.interferes_s)
    if "stores" in world.others:
        world.create(codec.encode(OTHERS))
    if "writes" in world.others:
        world.append(subject, TAKEN, None)


async def perform(data: DataObject, given_actions: tuple[Action, ...]) -> None:
    world = World(data, given_actions)
    context = context_of(world)
    actions = Actions(context, delivery_of(Request(id="j", prompt="a")), world.lease)
    publisher = Publisher(
        context.journal,
        KEY,
        "json",
        Streaming(),
        PublisherHooks(actions.is_held, lambda: None, lambda: None),
        world.clock,
    )
    publisher.follow(0)
    other = asyncio.create_task(interfere(world, context.journal.subject(KEY)))
    is_lost = False
    try:
        await actions.perform(given_actions, publisher)
    except LostError:
        is_lost = True
    with contextlib.suppress(LostError):  # a second call, whatever came of the first, does nothing more
        if is_lost:
            world.lease.is_lost = True
        await actions.perform([Nak(0.0)], publisher)
        raise AssertionError("the delivery was settled twice")
    publisher.close()
    await other

    assert world.faults == []
    assert len(world.settled) == 1 or (is_lost and not world.settled)
    if not is_lost:
        assert world.settled == ["ack" if isinstance(given_actions[-1], Ack) else "nak"]
    assert len(world.attempted) <= 1, "two different Results"
    for signal in world.told:
        if isinstance(signal, JobEnded):
            assert world.result is not None
            assert signal.status == codec.decode_result(world.result).status


@given(journals(), st.sampled_from([NOW, NOW + 700_000]), st.data())
def test_whatever_is_answered_the_end_of_an_attempt_keeps_its_order(
    events: list[Event], now: int, data: DataObject
) -> None:
    job = begin(data, Request(prompt="a"), events, now)
    run_simulated(perform(data, job.actions))


ENDS: dict[str, Callable[[Attempt], list[Action]]] = {
    "finished": lambda attempt: attempt.finished("stop", Usage(), NOW),
    "failed": lambda attempt: attempt.failed(EngineFailedError("broke"), NOW),
    "cancelled": lambda attempt: attempt.cancelled(NOW),
    "found": lambda attempt: attempt.found(RESULT, is_announced=False),
    "returned": lambda attempt: attempt.returned(),
    "postponed": lambda attempt: attempt.postponed(0.5),
}


@given(st.sampled_from(sorted(ENDS)), st.booleans(), st.data())
def test_so_does_each_end_of_a_new_job(end: str, has_begun: bool, data: DataObject) -> None:
    facts = JobFacts(JobRef("j", "t", "m", "batch", 17), "w", NOW, NOW, Request(prompt="a"))
    attempt = Attempt(facts, RetryPolicy())
    if has_begun:
        attempt.first(NOW)
    run_simulated(perform(data, tuple(ENDS[end](attempt))))
