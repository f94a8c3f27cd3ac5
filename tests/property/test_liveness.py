"""A worker is sure of itself only by the server's word since the last loss, and learns of each of its deaths once."""

import asyncio
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.broker import Broker
from mesh.broker.stores.liveness import LivenessEntry, LivenessStore
from mesh.clock import Clock
from mesh.errors import DisconnectedError, SequenceError
from mesh.protocol.messages import LivenessRecord
from mesh.protocol.subjects import Names
from mesh.worker.liveness import Liveness
from tests.simulated import FATES, Fate, Line, pass_time, run_simulated, simulated_clock

NAME = "w-1"
MEMORY_S = 10_000.0
PERIOD_S = 2.0
SETTLED_S = 20.0  # longer than it takes to learn of a death and to begin anew
DEATH = LivenessRecord(worker=NAME, session="", is_alive=False, by="w-2")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lose", "lose", "declare", "look", "declare what was seen", "wait"]),
        st.sampled_from([0.0, 0.05, 0.5, 1.5, 2.5, 5.0]),
    ),
    max_size=15,
)


class Subscription:
    def close(self) -> None:
        """Nothing is heard here."""


class Silent:
    """A connection on which nobody pings, and which may be away."""

    is_away = False

    def subscribe(self, subject: str, on_message: object) -> Subscription:
        return Subscription()

    def publish(self, subject: str, payload: bytes = b"", header: bytes = b"", reply: str = "") -> None:
        if self.is_away:
            raise DisconnectedError("no connection")


class Record(LivenessStore):
    """One worker's record under its fence; the worker's own calls and answers get lost."""

    def __init__(self) -> None:
        self.line = Line([])
        self.sequence = 0
        self.record: LivenessRecord | None = None
        self.losses = 0
        self.confirmed_at_loss = -1  # how many losses there were when the server last confirmed the worker

    def put(self, record: LivenessRecord, last: int | None) -> int:
        if last is not None and last != self.sequence:
            raise SequenceError("another wrote since", last=self.sequence)
        self.sequence += 1
        self.record = record
        return self.sequence

    async def write(self, record: LivenessRecord, last: int | None) -> int:
        losses = self.losses
        written = await self.line.carry(lambda: self.put(record, last))
        if losses == self.losses:
            self.confirmed_at_loss = losses
        return written

    async def last(self, worker: str) -> LivenessEntry | None:
        return await self.line.carry(lambda: LivenessEntry(self.sequence, self.record) if self.sequence else None)

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed_at_loss == self.losses


class Link:
    """The part of a Broker that a Liveness uses."""

    def __init__(self, liveness: Record, clock: Clock) -> None:
        self.connection, self.names, self.liveness, self.clock = Silent(), Names(), liveness, clock


class Life:
    """A worker's liveness, its record, and others who take it for dead."""

    def __init__(self) -> None:
        self.record = Record()
        self.deaths = self.learned = 0
        self.seen = 0
        self.faults: list[str] = []
        link = Link(self.record, simulated_clock())
        self.liveness = Liveness(cast(Broker, link), NAME, self.on_dead, self.on_confirmed)

    def on_dead(self) -> None:
        self.learned += 1
        if self.liveness.is_confirmed:
            self.faults.append("a worker that was declared dead is sure of itself")

    def on_confirmed(self) -> None:
        if not (self.liveness.is_confirmed and self.record.is_confirmed):
            self.faults.append("it was told that it is sure, and is not")

    def declare(self, fence: int) -> None:
        """As a failure detector does it, which saw the record at `fence`."""
        if fence == self.record.sequence and self.record.record is not None and self.record.record.is_alive:
            self.record.put(DEATH, fence)
            self.deaths += 1

    def step(self, what: str) -> None:
        match what:
            case "lose":
                self.record.losses += 1
                self.liveness.disturbed()
                self.check()
            case "declare":
                self.declare(self.record.sequence)
            case "look":
                self.seen = self.record.sequence
            case "declare what was seen":
                self.declare(self.seen)

    def check(self) -> None:
        assert self.faults == []
        assert not self.liveness.is_confirmed or self.record.is_confirmed, "sure without the server's word"
        assert self.learned <= self.deaths


async def live(steps: list[tuple[str, float]], fates: list[Fate]) -> None:
    life = Life()
    await life.liveness.begin(MEMORY_S)
    life.record.line = Line(fates)
    running = asyncio.create_task(life.liveness.run(PERIOD_S))
    for what, wait_s in steps:
        life.step(what)
        await asyncio.sleep(0)
        life.check()
        await pass_time(wait_s)
        life.check()
    await pass_time(SETTLED_S + 5.0 * len(fates))
    life.check()
    assert life.learned == life.deaths, "a death that the worker did not learn of, or heard of twice"
    assert life.liveness.is_confirmed, "it never was sure again"
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@given(STEPS, FATES)
def test_whatever_is_lost_a_worker_is_sure_by_the_servers_word_and_dies_once(
    steps: list[tuple[str, float]], fates: list[Fate]
) -> None:
    run_simulated(live(steps, fates))
