"""A publish whose outcome is unknown: what the journal's end says about it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from mesh.broker.broker import Broker
from mesh.broker.stores.journal import Entry, Journal
from mesh.broker.transport.calls import OnReply
from mesh.clock import SYSTEM
from mesh.errors import BrokerTimeoutError, MeshError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Delta, Event, Result, Started, Usage
from mesh.worker.publisher import LostError, Publisher, PublisherHooks, Streaming
from tests.running import wait_until

KEY = JobKey("t", "j")
STARTED = Started(id="j", attempt=1, index=0, worker="w", unix_ms=1, sequence=17)
RESULT = Result(id="j", tenant="t", model="m", status="finished", text="ab")


class LossyJournal(Journal):
    """The journal, from which some answers never come: of a publish that landed, or of one that never left."""

    def __init__(self, link: Broker) -> None:
        super().__init__(link)
        self.lost_answers = 0  # of the next publishes
        self.lost_publishes = 0  # of those after them
        self.sent = 0
        self.is_deaf = False  # what it is asked for is not answered
        self.when_asked: Callable[[], None] = lambda: None

    async def last(self, subject: str) -> Entry | None:
        if self.is_deaf:
            raise BrokerTimeoutError("no answer")
        entry = await super().last(subject)
        self.when_asked()
        return entry

    def publish(self, subject: str, body: bytes, last: int, on_reply: OnReply, timeout_s: float) -> None:
        self.sent += 1

        def unanswered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            on_reply(BrokerTimeoutError("no answer"), b"", b"")

        if self.lost_answers:
            self.lost_answers -= 1
            super().publish(subject, body, last, unanswered, timeout_s)
        elif self.lost_publishes:
            self.lost_publishes -= 1
            asyncio.get_running_loop().call_soon(unanswered, None, b"", b"")
        else:
            super().publish(subject, body, last, on_reply, timeout_s)


class Job:
    """A publisher, and what it told of."""

    def __init__(self, journal: LossyJournal, streams: bool = True, window_s: float = 0.0) -> None:
        self.journal = journal
        self.told: list[str] = []
        self.is_held = True
        hooks = PublisherHooks(
            is_held=lambda: self.is_held,
            on_lost=lambda: self.told.append("lost"),
            on_begun=lambda: self.told.append("begun"),
        )
        self.publisher = Publisher(journal, KEY, "json", Streaming(streams, window_s), hooks, SYSTEM)

    async def entries(self) -> list[Entry]:
        return await self.journal.read(self.journal.subject(KEY))

    async def events(self) -> list[Event | None]:
        return [each.event for each in await self.entries()]


@pytest.fixture
async def job(broker: Broker) -> AsyncIterator[Job]:
    made = Job(LossyJournal(broker))
    yield made
    made.publisher.close()


async def begun(job: Job) -> Job:
    job.publisher.begin(STARTED, 0)
    await job.publisher.wait_idle()
    return job


async def test_its_own_event_is_recognised_after_a_lost_answer(job: Job) -> None:
    job.journal.lost_answers = 1
    job.publisher.begin(STARTED, 0)
    await wait_until(lambda: job.told)
    assert job.told == ["begun"]
    assert await job.events() == [STARTED]
    assert job.journal.sent == 1, "what landed is not sent again"


async def test_output_whose_answer_was_lost_stands_once_and_the_next_follows_it(job: Job) -> None:
    await begun(job)
    job.journal.lost_answers = 2
    job.publisher.add("a", [1])
    await job.publisher.wait_idle()
    job.publisher.add("b", [2])
    await job.publisher.wait_idle()
    deltas = (await job.events())[1:]
    assert [(each.index, each.text) for each in deltas if isinstance(each, Delta)] == [(0, "a"), (1, "b")]
    assert job.told == ["begun"]
    assert job.publisher.has_grown
    assert job.publisher.last == (await job.entries())[-1].sequence


async def test_a_result_whose_answer_was_lost_is_announced_once(job: Job) -> None:
    await begun(job)
    job.journal.lost_answers = 1
    assert await job.publisher.announce(codec.encode(RESULT))
    assert await job.events() == [STARTED, RESULT]


async def test_a_publish_that_never_left_is_sent_again(job: Job) -> None:
    job.journal.lost_publishes = 2
    await begun(job)
    assert await job.events() == [STARTED]
    assert job.journal.sent == 3


async def test_a_job_that_another_has_begun_meanwhile_is_lost(job: Job, peer: Broker) -> None:
    """Its journal is read again by the runner, so it is told apart from one lost later."""
    await peer.journal.append(job.journal.subject(KEY), codec.encode(STARTED), 0)
    job.publisher.begin(replace(STARTED, worker="x"), 0)
    with pytest.raises(LostError):
        await asyncio.wait_for(job.publisher.wait_idle(), 5)
    assert job.told == ["lost"]
    assert job.publisher.is_refused_first


async def test_a_job_that_another_took_over_gets_no_more_output(job: Job, peer: Broker) -> None:
    await begun(job)
    taken = Started(id="j", attempt=2, index=0, worker="x", unix_ms=2)
    await peer.journal.append(job.journal.subject(KEY), codec.encode(taken), job.publisher.last)
    job.publisher.add("a", [1])
    with pytest.raises(LostError):
        await job.publisher.wait_idle()
    assert await job.events() == [STARTED, taken]
    assert job.told == ["begun", "lost"]
    assert not job.publisher.is_refused_first
    sent = job.journal.sent
    assert not await job.publisher.announce(codec.encode(RESULT))
    assert job.journal.sent == sent
    assert await job.events() == [STARTED, taken]


async def test_without_the_lease_nothing_is_published(job: Job) -> None:
    await begun(job)
    job.is_held = False
    job.publisher.add("a", [1])
    with pytest.raises(LostError):
        await job.publisher.wait_idle()
    assert await job.events() == [STARTED]
    assert job.journal.sent == 1


async def test_without_the_lease_nothing_is_sent_again(job: Job) -> None:
    """It ran out while the journal was read."""
    await begun(job)
    job.journal.lost_publishes = 1
    job.publisher.add("a", [1])
    job.is_held = False
    with pytest.raises(LostError):
        await job.publisher.wait_idle()
    assert await job.events() == [STARTED]
    assert job.journal.sent == 2


async def test_the_lease_bounds_how_long_a_silent_journal_is_asked(job: Job) -> None:
    await begun(job)
    job.journal.lost_publishes, job.journal.is_deaf = 1, True
    job.publisher.add("a", [1])
    job.is_held = False
    with pytest.raises(LostError):
        await job.publisher.wait_idle()
    assert job.told == ["begun", "lost"]


async def test_the_lease_that_ends_while_the_journal_answers_ends_the_job(job: Job) -> None:
    await begun(job)
    job.journal.lost_publishes = 1
    job.journal.when_asked = lambda: setattr(job, "is_held", False)
    job.publisher.add("a", [1])
    with pytest.raises(LostError):
        await job.publisher.wait_idle()
    assert await job.events() == [STARTED]
    assert job.journal.sent == 2


async def test_output_that_gathers_while_an_answer_is_awaited_leaves_as_one_event(job: Job) -> None:
    job.publisher.begin(STARTED, 0)
    for number in range(5):
        job.publisher.add(str(number), [number])
    job.publisher.finish("stop", Usage(completion_tokens=6), "5", [5])
    await job.publisher.wait_idle()
    (delta,) = (await job.events())[1:]
    assert isinstance(delta, Delta)
    assert (delta.text, delta.token_ids, delta.finish_reason) == ("012345", [0, 1, 2, 3, 4, 5], "stop")


async def test_the_result_of_a_job_that_streams_nothing_is_its_first_public_event(broker: Broker) -> None:
    job = await begun(Job(LossyJournal(broker), streams=False))
    job.publisher.add("a", [1])
    assert await job.publisher.announce(codec.encode(RESULT))
    assert await job.events() == [RESULT]
    attempts = await job.journal.read(job.journal.attempts_subject(KEY))
    assert [each.event for each in attempts] == [STARTED]
    job.publisher.close()


async def test_a_fault_as_a_window_ends_leaves_no_gap(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody awaits the timer that sends what gathered: what it could not send must not be followed by more."""
    job = Job(LossyJournal(broker), window_s=2.0)
    job.publisher.begin(STARTED, 0)
    job.publisher.add("a", [1])
    await wait_until(lambda: job.publisher.has_grown)

    def faulty(*arguments: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(job.journal, "publish", faulty)
        job.publisher.add("b", [2])
        await wait_until(lambda: "lost" in job.told)
    job.publisher.add("c", [3])
    with pytest.raises(LostError):
        await job.publisher.wait_idle()
    started, *deltas = await job.events()
    assert started == STARTED
    assert [each.token_ids for each in deltas if isinstance(each, Delta)] == [[1]]
    job.publisher.close()
