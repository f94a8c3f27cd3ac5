"""A worker's books against a queue that does what it likes: never too many jobs, never none for no reason."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.policies.tiers import TierWeights
from mesh.protocol.messages import TIERS
from mesh.worker.credits import WAIT_IDLE_S, Credits, Pull, Source

CONSUMER = st.integers(0, 11)


class Worker(RuleBasedStateMachine):
    """Credits, and the server and the engine around them.

    What a pull does here is what broker/stores/pulls makes of it.
    """

    @initialize(capacity=st.integers(1, 14) | st.integers(15, 64), lanes=st.integers(1, 4))
    def start(self, capacity: int, lanes: int) -> None:
        sources = [Source(f"m-{tier}-{lane}", tier, lane) for tier in TIERS for lane in range(lanes)]
        self.capacity = capacity
        self.names = [source.consumer for source in sources]
        self.is_tiny = capacity < len(sources)
        self.credits = Credits(capacity, sources, TierWeights())
        self.queue = dict.fromkeys(self.names, 0)
        self.open: dict[str, tuple[Pull, int]] = {}  # the ask, and the jobs it may still bring
        self.running: deque[str] = deque()
        self.paused_until = dict.fromkeys(self.names, 0.0)
        self.now_s = 0.0
        self.is_planned = False

    def name(self, number: int) -> str:
        return self.names[number % len(self.names)]

    def promised(self) -> int:
        """Jobs on their way that must find a slot."""
        return sum(left for ask, left in self.open.values() if ask.expires_s is None or not self.is_tiny)

    # What happens.

    @rule()
    def plan(self) -> None:
        for ask in self.credits.plan(self.now_s, frozenset({0})):
            assert ask.batch >= 1
            assert ask.source.consumer not in self.open, "two pulls on one consumer"
            assert self.now_s >= self.paused_until[ask.source.consumer]
            if ask.expires_s is not None:
                assert ask.batch == 1
                assert 0 < ask.expires_s <= WAIT_IDLE_S
            self.open[ask.source.consumer] = (ask, ask.batch)
        self.is_planned = True

    @rule(number=CONSUMER, jobs=st.integers(1, 100))
    def arrive(self, number: int, jobs: int) -> None:
        self.queue[self.name(number)] += jobs

    @rule(number=CONSUMER)
    def answer(self, number: int) -> None:
        """The server serves one pull as far as its queue goes; a waiting one it answers when there is a job."""
        name = self.name(number)
        if name not in self.open:
            return
        ask, left = self.open[name]
        while left and self.queue[name]:
            left -= 1
            self.deliver(name, left)
        if left == 0:
            self.end(name, empty=False)
        elif ask.expires_s is None:
            self.end(name, empty=True)

    def deliver(self, name: str, left: int) -> None:
        self.queue[name] -= 1
        self.open[name] = (self.open[name][0], left)
        accepted = self.credits.accepts()
        self.credits.delivered(name, self.queue[name], accepted)
        if accepted:
            self.running.append(name)
        else:
            assert self.is_tiny, "a job was pulled that could not start"
            self.queue[name] += 1  # handed back
        self.is_planned = False

    def end(self, name: str, empty: bool, pause_s: float = 0.0) -> None:
        del self.open[name]
        self.credits.ended(name, self.now_s, empty, pause_s)
        self.paused_until[name] = self.now_s + pause_s
        self.is_planned = False

    @rule(number=CONSUMER)
    def expire(self, number: int) -> None:
        """A waiting pull ran out, whether or not a job came at that moment."""
        name = self.name(number)
        if name in self.open and self.open[name][0].expires_s is not None:
            self.end(name, empty=True)

    @rule(number=CONSUMER, pause_s=st.sampled_from([0.0, 0.2]))
    def fail(self, number: int, pause_s: float) -> None:
        """A consumer is gone, or its leader is; some jobs of the pull had come."""
        name = self.name(number)
        if name in self.open:
            self.end(name, empty=False, pause_s=pause_s)

    @rule()
    def lose_connection(self) -> None:
        for name in list(self.open):
            self.end(name, empty=False, pause_s=0.2)

    @precondition(lambda self: self.running)
    @rule(jobs=st.integers(1, 20))
    def finish(self, jobs: int) -> None:
        for _ in range(min(jobs, len(self.running))):
            self.running.popleft()
            self.credits.released()
        self.is_planned = False

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.is_planned = False

    # What is always so.

    @invariant()
    def no_more_is_promised_than_can_start(self) -> None:
        assert self.credits.running == len(self.running) <= self.capacity
        assert len(self.running) + self.promised() <= self.capacity
        assert self.credits.free == self.capacity - len(self.running) - self.promised()

    @invariant()
    def a_free_slot_is_not_left_unused(self) -> None:
        if not self.is_planned or self.credits.free <= 0:
            return
        idle = [name for name in self.names if name not in self.open and self.now_s >= self.paused_until[name]]
        # Held back for a tier whose turn it is: its answer is a round trip away, and brings the news of more.
        is_held = any(ask.expires_s is None for ask, _ in self.open.values())
        assert not idle or is_held

    @invariant()
    def an_idle_worker_is_never_deaf(self) -> None:
        if self.is_planned and not self.running:
            assert self.open or all(self.now_s < until for until in self.paused_until.values())

    def teardown(self) -> None:
        """Whatever has happened: what waits now is all served, a full engine's worth a round."""
        if not hasattr(self, "credits"):
            return
        # One slot for many consumers may spend every second round on a look that finds nothing.
        rounds = (2 if self.is_tiny else 1) * (3 + len(self.names) + sum(self.queue.values()))
        while sum(self.queue.values()):
            rounds -= 1
            assert rounds > 0, f"stuck with {self.queue}, open {self.open}"
            self.now_s += WAIT_IDLE_S
            for number in [*range(len(self.names)), *range(len(self.names))]:
                self.answer(number)
                self.plan()  # as the worker does after each answer
            if self.running:
                self.finish(len(self.running))


TestWorker = Worker.TestCase
TestWorker.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("capacity", [1, 2, 5, 12, 40])
def test_under_full_load_the_tiers_share_the_engine_by_weight(capacity: int) -> None:
    worker = Worker()
    worker.start(capacity, 4)
    served: dict[str, int] = dict.fromkeys(TIERS, 0)
    for _ in range(2000 // capacity + 400):
        for name in worker.names:
            worker.queue[name] = 50
        worker.now_s += 0.01
        worker.plan()
        for number in range(len(worker.names)):
            worker.answer(number)
        for name in worker.running:
            served[name.split("-")[1]] += 1
        if worker.running:
            worker.finish(len(worker.running))
    total = sum(served.values())
    assert served["interactive"] / total == pytest.approx(16 / 21, abs=0.06)
    assert served["standard"] / total == pytest.approx(4 / 21, abs=0.05)
    assert served["batch"] / total == pytest.approx(1 / 21, abs=0.03)
