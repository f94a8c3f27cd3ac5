"""A job's handle, with its journal in the test's hand: what a reader sees when it is interrupted or comes late."""

import asyncio

import pytest

from mesh.broker.stores.journal import Entry
from mesh.client.assembly import Restarted
from mesh.client.internal import JobHandle
from mesh.errors import WaitTimeoutError
from mesh.job_key import JobKey
from mesh.protocol.messages import Delta, Event, JobStatus, Result, Started
from tests.running import wait_until

KEY = JobKey("t", "j")


def started(attempt: int, index: int = 0, sequence: int = 0) -> Started:
    return Started(id="j", attempt=attempt, index=index, worker="w", unix_ms=1, sequence=sequence)


def delta(attempt: int, index: int, text: str) -> Delta:
    return Delta(id="j", attempt=attempt, index=index, text=text, token_ids=[ord(each) for each in text])


def ended(text: str) -> Result:
    return Result(id="j", tenant="t", model="m", status="finished", text=text, attempts=2)


class Client:
    """What a handle needs of one: a journal, which answers while `open` is set."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.open = asyncio.Event()
        self.open.set()
        self.reads = 0

    async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]:
        self.reads += 1
        await self.open.wait()
        page = [Entry(sequence, event, b"") for sequence, event in enumerate(self.events, 1)]
        return page[after : after + limit]

    async def load_result(self, result: Result) -> Result:
        return result

    async def cancel_job(self, job: str, timeout_s: float) -> str:
        raise AssertionError("no test here cancels")

    async def job_status(self, job: str, timeout_s: float) -> JobStatus:
        raise AssertionError("no test here asks")

    def outlook(self) -> str:
        return "it goes on"

    def forget(self, job: JobHandle) -> None:
        pass


async def shown(job: JobHandle, count: int) -> list[Delta | Restarted]:
    stream = job.deltas()
    return [await anext(stream) for _ in range(count)]


async def test_a_read_that_is_cancelled_is_done_again() -> None:
    client = Client(started(1), delta(1, 0, "ab"))
    job = JobHandle(client, KEY, 60, is_new=False)
    client.open.clear()
    reading = asyncio.create_task(shown(job, 1))
    await wait_until(lambda: client.reads == 1)
    reading.cancel()
    await asyncio.wait({reading})
    client.open.set()
    assert [each.text for each in await asyncio.wait_for(shown(job, 1), 1)] == ["ab"]
    job.close()


async def test_a_read_that_hangs_ends_with_the_handles_bound() -> None:
    client = Client()
    client.open.clear()
    with pytest.raises(WaitTimeoutError, match=r"after 0\.05 s"):
        await asyncio.wait_for(shown(JobHandle(client, KEY, 0.05, is_new=False), 1), 1)


async def test_a_late_reader_is_told_that_what_it_had_no_longer_stands() -> None:
    client = Client(started(1), delta(1, 0, "ab"), started(2), delta(2, 0, "xyz"), ended("xyz"))
    seen = [each async for each in JobHandle(client, KEY, 60, is_new=False, index=2).deltas()]
    assert isinstance(seen[0], Restarted)
    assert [each.text for each in seen[1:]] == ["xyz"]


async def test_a_late_reader_does_not_notice_an_attempt_that_says_the_same_again() -> None:
    client = Client(started(1), delta(1, 0, "a"), delta(1, 1, "b"), started(2), delta(2, 0, "abc"), ended("abc"))
    for index, rest in ((0, ["a", "b", "c"]), (1, ["b", "c"]), (2, ["c"]), (3, [])):
        seen = [each async for each in JobHandle(client, KEY, 60, is_new=False, index=index).deltas()]
        assert [each.text for each in seen] == rest


async def test_a_journal_whose_beginning_is_gone_is_read_once_for_each_event_and_made_good_by_the_result() -> None:
    client = Client(delta(1, 5, "f"))
    job = JobHandle(client, KEY, 60, is_new=False)
    reading = asyncio.create_task(asyncio.wait_for(shown(job, 1), 5))
    for index, text in enumerate("ghi", 6):
        await wait_until(lambda: job.statistics().waits)
        client.events.append(delta(1, index, text))
        job.heard(client.events[-1])
    await wait_until(lambda: job.statistics().waits)
    assert client.reads <= 5
    job.heard(ended("abcdefghi"))
    assert [each.text for each in await reading] == ["abcdefghi"]


@pytest.mark.parametrize("is_late", [True, False], ids=["before the PubAck", "after it"])
@pytest.mark.parametrize(
    ("event", "other"),
    [(started(1, sequence=7), []), (started(1), []), (started(1, sequence=3), [3]), (delta(1, 4, "x"), [0])],
    ids=["our own", "of a worker that does not say", "another request's", "begun before we listened"],
)
async def test_the_first_event_tells_whose_request_is_served(
    event: Delta | Started, other: list[int], is_late: bool
) -> None:
    told: list[int] = []
    job = JobHandle(Client(), KEY, 60, is_new=True)
    job.on_other = told.append
    if is_late:
        job.heard(event)
        job.stored(7)
    else:
        job.stored(7)
        job.heard(event)
    job.heard(started(2, sequence=9))
    assert told == other
    job.close()
