"""A job's events on a real server: fenced, heard live, read back."""

import asyncio

import pytest

from mesh.broker.broker import Broker
from mesh.broker.stores import journal as journal_module
from mesh.broker.stores.journal import PAGE, Entry, Journal
from mesh.broker.stores.reads import PageSize
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.mapping import read_puback
from mesh.broker.transport.options import ConnectOptions
from mesh.errors import BrokerError, SequenceError, TooLargeError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Delta, Event, Result, Started
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import present, wait_until

NAMES = Names()


@pytest.fixture
def journal(mesh_server: EmbeddedServer, connection: Connection) -> Journal:
    return Journal(Broker(connection, NAMES))


def delta(index: int, text: str = "x") -> Delta:
    return Delta(id="j", attempt=1, index=index, text=text, token_ids=[index])


STARTED = Started(id="j", attempt=1, index=0, worker="w", unix_ms=1, sequence=17)


async def append(
    journal: Journal, event: Event, last: int, subject: str = "mesh.out.t.j", encoding: Encoding = "json"
) -> int:
    """Publish one event and return its sequence."""
    done = asyncio.get_running_loop().create_future()
    journal.publish(subject, codec.encode(event, encoding), last, lambda *answer: done.set_result(answer), 5.0)
    error, _, payload = await done
    if error is not None:
        raise error
    return read_puback(payload, subject).seq


def index_of(entry: Entry) -> int:
    assert isinstance(entry.event, Delta)
    return entry.event.index


async def test_events_follow_each_other_under_their_fence(journal: Journal) -> None:
    first = await append(journal, STARTED, 0)
    second = await append(journal, delta(0), first)
    assert second > first
    entries = await journal.read("mesh.out.t.j")
    assert [entry.event for entry in entries] == [STARTED, delta(0)]
    assert [entry.sequence for entry in entries] == [first, second]
    assert entries[0].body == codec.encode(STARTED)


async def test_who_comes_too_late_is_refused_and_told_the_last_sequence(journal: Journal) -> None:
    first = await append(journal, STARTED, 0)
    for wrong in (0, first + 1, first + 100):
        with pytest.raises(SequenceError) as refused:
            await append(journal, delta(0), wrong)
        assert refused.value.last in (0, first)
    assert len(await journal.read("mesh.out.t.j")) == 1


async def test_of_many_who_publish_at_once_one_is_first(journal: Journal) -> None:
    tries = await asyncio.gather(*(append(journal, delta(0, str(n)), 0) for n in range(30)), return_exceptions=True)
    assert len([each for each in tries if isinstance(each, int)]) == 1
    assert all(isinstance(each, int | SequenceError) for each in tries)
    assert len(await journal.read("mesh.out.t.j")) == 1


async def test_the_fence_is_the_jobs_own(journal: Journal) -> None:
    await append(journal, STARTED, 0)
    await append(journal, STARTED, 0, "mesh.out.t.k")
    await append(journal, STARTED, 0, "mesh.out.u.j")


async def test_one_publish_is_live_and_kept(journal: Journal, connection: Connection) -> None:
    heard: list[Event] = []
    subscription = journal.subscribe(JobKey("t", "j"), heard.append)
    connection.publish("mesh.out.t.j2", codec.encode(STARTED))
    await append(journal, STARTED, 0)
    await wait_until(lambda: heard == [STARTED])
    subscription.close()


async def test_what_is_no_event_is_not_heard(journal: Journal, connection: Connection) -> None:
    heard: list[Event] = []
    subscription = journal.subscribe(JobKey("t", "j"), heard.append)
    connection.publish("mesh.out.t.j", b"not an event")
    connection.publish("mesh.out.t.j", codec.encode(STARTED))
    await wait_until(lambda: heard == [STARTED])
    subscription.close()


async def test_an_event_of_a_later_minor_keeps_its_place_and_is_not_heard(
    journal: Journal, connection: Connection
) -> None:
    """Who passes entries on sees no gap where it stands."""
    heard: list[Event] = []
    entries: list[tuple[Entry, int]] = []
    subscription = journal.subscribe(
        JobKey("t", "j"), heard.append, lambda entry, previous: entries.append((entry, previous))
    )
    first = await append(journal, STARTED, 0)
    later = b'{"type":"progress","id":"j","attempt":1,"index":0,"percent":50}'
    _, payload = await connection.request("mesh.out.t.j", later)
    second = read_puback(payload, "progress").seq
    third = await append(journal, delta(0), second)
    await wait_until(lambda: len(entries) == 3)
    assert heard == [STARTED, delta(0)]
    assert [(entry.sequence, previous) for entry, previous in entries] == [(first, 0), (second, first), (third, second)]
    assert entries[1][0].later is not None
    assert (entries[1][0].event, entries[1][0].later.type, entries[1][0].body) == (None, "progress", later)
    subscription.close()


@pytest.mark.parametrize("count", [0, 1, PAGE.messages - 1, PAGE.messages, PAGE.messages + 1, 2 * PAGE.messages + 3])
async def test_a_journal_of_any_length_is_read_whole_and_in_order(
    journal: Journal, connection: Connection, count: int
) -> None:
    for index in range(count):
        connection.publish("mesh.out.t.j", codec.encode(delta(index)))
        if index % 7 == 0:
            connection.publish("mesh.out.t.other", codec.encode(STARTED))
    await connection.request("$JS.API.INFO")

    async def stored() -> bool:
        last = await journal.last("mesh.out.t.j")
        return count == 0 or (last is not None and index_of(last) == count - 1)

    await wait_until(stored)
    entries = await journal.read("mesh.out.t.j")
    assert [index_of(entry) for entry in entries] == list(range(count))
    sequences = [entry.sequence for entry in entries]
    assert sequences == sorted(set(sequences))


async def test_a_journal_is_read_from_anywhere_and_by_pages(journal: Journal) -> None:
    last, sequences = 0, []
    for index in range(10):
        last = await append(journal, delta(index), last)
        sequences.append(last)
    assert [index_of(e) for e in await journal.read("mesh.out.t.j", sequences[3])] == [4, 5, 6, 7, 8, 9]
    assert [index_of(e) for e in await journal.read("mesh.out.t.j", sequences[3], 2)] == [4, 5]
    assert [index_of(e) for e in await journal.read("mesh.out.t.j", 0, 1)] == [0]
    assert await journal.read("mesh.out.t.j", sequences[-1]) == []
    assert await journal.read("mesh.out.t.j", 0, 0) == []
    assert [[index_of(e) for e in page] async for page in journal.pages("mesh.out.t.j", sequences[5])] == [[6, 7, 8, 9]]


async def test_more_events_than_a_page_holds_are_read_up_to_a_limit(
    journal: Journal, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PAGE", PageSize(messages=4))
    last = 0
    for index in range(10):
        last = await append(journal, delta(index), last)
    subject = "mesh.out.t.j"
    for limit in range(12):
        assert [index_of(e) for e in await journal.read(subject, 0, limit)] == list(range(min(limit, 10)))
    assert [len(page) async for page in journal.pages(subject)] == [4, 4, 2]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_the_last_event_is_read_from_the_leader(journal: Journal, encoding: Encoding) -> None:
    assert await journal.last("mesh.out.t.j") is None
    first = await append(journal, STARTED, 0, encoding=encoding)
    result = Result(id="j", tenant="t", model="m", status="finished", text="\x00\U0001f99c")
    last = await append(journal, result, first, encoding=encoding)
    entry = await journal.last("mesh.out.t.j")
    assert entry is not None
    assert (entry.sequence, entry.event, entry.body) == (last, result, codec.encode(result, encoding))


async def test_attempts_of_a_job_that_streams_nothing_are_out_of_its_readers_sight(journal: Journal) -> None:
    heard: list[Event] = []
    subscription = journal.subscribe(JobKey("t", "j"), heard.append)
    await append(journal, STARTED, 0, journal.attempts_subject(JobKey("t", "j")))
    assert present(await journal.last(journal.attempts_subject(JobKey("t", "j")))).event == STARTED
    assert await journal.last("mesh.out.t.j") is None
    assert heard == []
    subscription.close()


async def test_an_event_too_large_is_refused_before_it_is_sent(journal: Journal) -> None:
    with pytest.raises(TooLargeError):
        await append(journal, delta(0, "x" * journal.max_bytes), 0)
    assert await append(journal, delta(0, "x" * (journal.max_bytes - 1024)), 0) == 1


async def test_without_an_events_stream_nothing_can_be_read(server: EmbeddedServer) -> None:
    async with connect(ConnectOptions(servers=(server.url,))) as connection:
        journal = Journal(Broker(connection, NAMES))
        with pytest.raises(BrokerError):
            await journal.last("mesh.out.t.j")
        with pytest.raises(BrokerError):
            await journal.read("mesh.out.t.j")
