"""Whatever the queue and the connection do: never too many jobs, and each delivery starts, goes back or stays alone."""

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.pulls import Leases, OnDelivery, OnEnd, PullEnd, Pulls
from mesh.broker.transport.mesh_link import MeshLink
from mesh.clock import Clock
from mesh.errors import DisconnectedError
from mesh.policies.tiers import TierWeights
from mesh.protocol.subjects import Names
from mesh.worker import puller
from mesh.worker.puller import TICK_S, Puller
from tests.running import MODEL
from tests.simulated import pass_time, run_simulated
from tests.wire import delivery_of

AWAY_S = 3600.0
CONSUMERS = [f"{MODEL}-{tier}-{lane}" for tier in ("interactive", "standard", "batch") for lane in range(4)]
ENDS: tuple[PullEnd, ...] = ("empty", "broken")
WHAT = ["deliver"] * 6 + ["release", "end", "late", "tick", "tick", "lose", "connect", "hold", "sleep", "foreign"]
STEP = st.tuples(st.sampled_from(WHAT), st.integers(0, 11))


class Line:
    """A connection as the puller sees it: there or not, and what was published on it."""

    def __init__(self) -> None:
        self.is_connected = True


class OpenPulls(Pulls):
    """The pulls that the puller sent, and how many jobs each may still bring."""

    def __init__(self, link: MeshLink, on_delivery: OnDelivery, on_end: OnEnd) -> None:
        self._link = link
        self.left: dict[str, int] = {}
        self.sent = 0
        self.on_delivery, self.on_end = on_delivery, on_end

    @property
    def open_pulls(self) -> int:
        return len(self.left)

    def pull(self, consumer: str, batch: int, expires_s: float | None, priority: int) -> None:
        assert consumer not in self.left, "two pulls on one consumer"
        if not self._link.connection.is_connected:
            raise DisconnectedError("no connection")
        self.left[consumer] = batch
        self.sent += 1

    def reset(self) -> None:
        consumers, self.left = list(self.left), {}
        for consumer in consumers:
            self.on_end(consumer, "broken")

    def expire(self) -> None:
        """No pull of this test is forgotten by itself: a step ends it."""


class Settlements(Leases):
    """What was said about each delivery."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.said: list[tuple[str, str]] = []

    def hand_back(self, ack_subject: str, delay_s: float = 0.0) -> None:
        self.said.append((ack_subject, "nak"))
        if not self._line.is_connected:
            raise DisconnectedError("no connection")

    def term(self, delivery: Delivery, reason: str) -> None:
        self.said.append((delivery.ack_subject, "term"))


class Worker:
    """A puller, and the queue, the engine and the process around it."""

    def __init__(self, capacity: int) -> None:
        time = asyncio.get_running_loop().time
        self.capacity = capacity
        self.line = Line()
        self.slept_s = 0.0
        self.ticks = 2  # since the process was suspended: from the second on all is well
        self.is_held_up = self.is_stopped = False
        self.started: list[str] = []
        self.running = self.late = self.number = 0
        link = MeshLink(self.line, Names(), Clock(time, lambda: 0, lambda: time() + self.slept_s))  # type: ignore[arg-type]  # no NATS
        self.settlements = Settlements(self.line)
        self.puller = Puller(cast(Broker, link), MODEL, capacity, lambda: self.is_held_up, self.start)
        self.puller._leases = self.settlements
        self.puller._begin(TierWeights())
        assert isinstance(self.puller._puller, OpenPulls)
        self.pulls = self.puller._puller
        self.puller.ticked()

    def start(self, delivery: Delivery) -> None:
        self.started.append(delivery.ack_subject)
        self.running += 1

    async def step(self, what: str, number: int) -> None:
        consumers = sorted(self.pulls.left)
        consumer = consumers[number % len(consumers)] if consumers else ""
        sent, may_pull = self.pulls.sent, self.may_pull()
        match what:
            case "deliver" if consumer:
                self.arrive(consumer)
            case "foreign" if consumer:
                self.arrive(consumer, tenant="ten!ant")
            case "late" if self.line.is_connected:  # of a pull that was given up: its leader had died
                self.late += 1
                self.arrive(CONSUMERS[number])
            case "release" if self.running:
                self.running -= 1
                self.puller.released()
            case "end" if consumer:
                del self.pulls.left[consumer]
                self.pulls.on_end(consumer, ENDS[number % 2])
            case "tick":
                await pass_time(TICK_S)
                self.ticks += 1
                self.puller.ticked()
            case "lose" | "connect":
                self.line.is_connected = what == "connect"
                self.puller.connection_changed(self.line.is_connected)
            case "hold":
                self.is_held_up = not self.is_held_up
            case "sleep":
                self.slept_s += AWAY_S
                self.ticks = 0
            case "stop":
                self.is_stopped = True
                self.puller.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        is_silent = self.pulls.sent == sent
        assert is_silent or may_pull or self.may_pull(), "a pull was sent that could start nothing"

    def may_pull(self) -> bool:
        return self.line.is_connected and self.ticks >= 2 and not (self.is_held_up or self.is_stopped)

    def arrive(self, consumer: str, tenant: str = "t") -> None:
        """One delivery, and what became of it."""
        self.number += 1
        job = f"$JS.ACK.{self.number}"
        delivery = delivery_of(tenant=tenant, consumer=consumer, ack_subject=job)
        had_room = self.running < self.capacity
        pull_left = self.pulls.left.get(consumer, 0)
        if pull_left == 1:
            del self.pulls.left[consumer]
        elif pull_left:
            self.pulls.left[consumer] -= 1
        self.pulls.on_delivery(delivery)
        if pull_left == 1:
            self.pulls.on_end(consumer, "filled")
        said = [how for subject, how in self.settlements.said if subject == job]
        if self.ticks < 2:
            assert (job in self.started, said) == (False, []), "it may be another worker's by now"
        elif tenant != "t":
            assert (job in self.started, said) == (False, ["term"])
        elif self.is_held_up or self.is_stopped or not had_room:
            assert (job in self.started, said) == (False, ["nak"]), "nothing may start"
        else:
            assert (job in self.started, said) == (True, []), "there was a slot"

    def check(self) -> None:
        is_tiny = self.capacity < len(CONSUMERS)
        assert self.running <= self.capacity
        if not is_tiny:  # one with fewer slots than consumers waits on all of them, and hands back what is too much
            promised = sum(self.pulls.left.values())
            assert self.running + promised <= self.capacity + self.late, "more is promised than can start"
        assert len(set(self.started)) == len(self.started)
        subjects = [subject for subject, _ in self.settlements.said]
        assert len(set(subjects)) == len(subjects), "a delivery was settled twice"
        assert not set(subjects) & set(self.started), "a job was started and handed back"
        assert self.puller.emptied.is_set() == (self.is_stopped and not self.pulls.left)


async def pull(capacity: int, is_idle: bool, steps: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puller, "Pulls", OpenPulls)
        worker = Worker(capacity)
        idle = [("end", 0)] * (2 * len(CONSUMERS) if is_idle else 0)  # the puller waits on all it can wait on
        for what, number in [*idle, *steps, ("stop", 0), *after]:
            await worker.step(what, number)
            worker.check()


@given(
    st.integers(1, 3) | st.integers(1, 30),
    st.booleans(),
    st.lists(STEP, min_size=1, max_size=60),
    st.lists(STEP, max_size=15),
)
def test_whatever_happens_a_puller_starts_no_more_than_fits_and_settles_once(
    capacity: int, is_idle: bool, steps: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    run_simulated(pull(capacity, is_idle, steps, after))
