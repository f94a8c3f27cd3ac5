"""What a requester sees of a journal: each event before the Result once, in order, whatever was heard live."""

import asyncio
from collections.abc import Awaitable, Callable, Set

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.broker.stores.journal import Entry
from mesh.errors import DisconnectedError
from mesh.gateway.nats.stream import EventStream
from mesh.protocol.messages import Delta, Event, Result, Started

RESULT = Result(id="j", tenant="t", model="m", status="finished", text="ab")


def journal(n_deltas: int) -> list[Entry]:
    """A whole job's journal; its entries are not neighbours in the stream."""
    events: list[Event] = [Started(id="j", attempt=1, index=0, worker="w", unix_ms=1)]
    events += [Delta(id="j", attempt=1, index=n, text="x", token_ids=[n]) for n in range(n_deltas)]
    return [Entry(10 + 3 * n, event, b"%d" % n) for n, event in enumerate([*events, RESULT])]


def reader(entries: list[Entry]) -> Callable[[int, int], Awaitable[list[Entry]]]:
    async def read(after: int, limit: int) -> list[Entry]:
        return [entry for entry in entries if entry.sequence > after][:limit]

    return read


async def follow(entries: list[Entry], heard: list[int], is_away: Set[int] = frozenset()) -> list[bytes]:
    """What was sent, when only the entries `heard` (their places) came live, and sending failed at some of them."""
    sent: list[bytes] = []
    away = set(is_away)

    def send(body: bytes) -> None:
        if int(body) in away:
            away.discard(int(body))
            raise DisconnectedError("away")
        sent.append(body)

    follower = EventStream(send)
    running = asyncio.create_task(follower.run(reader(entries)))
    for place in heard:
        follower.heard(entries[place], entries[place - 1].sequence if place else 0)
        if place % 3 == 0:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await follower.finish(reader(entries))
    assert follower.is_over
    return sent


@given(st.integers(0, 12), st.data())
def test_each_event_is_sent_once_and_in_order_whatever_was_heard(n_deltas: int, data: DataObject) -> None:
    entries = journal(n_deltas)
    places = st.integers(0, len(entries) - 1)
    heard = sorted(data.draw(st.lists(places, unique=True)))
    again = data.draw(st.lists(places, max_size=3))
    away = set(data.draw(st.lists(places, max_size=3)))
    sent = asyncio.run(follow(entries, [*heard, *again], away))
    assert sent == [entry.body for entry in entries[:-1]]


async def test_a_job_whose_events_are_gone_is_at_its_result() -> None:
    assert await follow([], []) == []


async def test_an_entry_that_no_worker_wrote_is_passed_over() -> None:
    entries = journal(2)
    entries[2] = Entry(entries[2].sequence, None, b"2")
    assert await follow(entries, list(range(len(entries)))) == [b"0", b"1"]
