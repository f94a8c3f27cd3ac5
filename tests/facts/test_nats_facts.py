"""What nats-server does that mesh is built around, on a real one: a server that changes any of it fails here.

Each docstring says what follows for mesh. A few facts show by chance, because they are about how much a server had
written when it was killed: those are tried several times, and what mesh counts on is asserted every time.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.client import JetStreamContext

from mesh.server import EmbeddedServer
from tests.running import wait_until

STREAM, SUBJECT, CONSUMER = "JOBS", "jobs", "workers"
MAX_DELIVERIES = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{STREAM}.{CONSUMER}"

LEASE_S = 0.5  # an ack_wait that a test waits for
HELD_S = 30.0  # an ack_wait that does not end while a test runs
PATIENCE_S = 10.0  # for what must come
SILENCE_S = 1.2  # to see that nothing comes: more than two leases
TRIALS = 15  # for what a crash shows by chance; the first usually does
BATCH = 500  # messages acknowledged just before a crash


@contextlib.asynccontextmanager
async def connected(server: EmbeddedServer, **options: Any) -> AsyncIterator[Client]:
    """A plain nats-py connection; it ends with the server unless told otherwise."""

    async def expect(error: Exception) -> None:
        """The servers here are killed on purpose."""

    client = await nats.connect(server.url, error_cb=expect, **({"allow_reconnect": False} | options))
    try:
        yield client
    finally:
        await client.close()


async def work_queue(client: Client, messages: int, **consumer: Any) -> JetStreamContext.PullSubscription:
    """A new work queue with so many messages on it and one consumer; what pulls from it."""
    js = client.jetstream()
    await js.add_stream(StreamConfig(name=STREAM, subjects=[SUBJECT], retention=RetentionPolicy.WORK_QUEUE))
    await js.add_consumer(STREAM, ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, **consumer))
    await asyncio.gather(*(js.publish(SUBJECT, b"%d" % number) for number in range(messages)))
    return await pulling(client)


async def pulling(client: Client) -> JetStreamContext.PullSubscription:
    return await client.jetstream().pull_subscribe_bind(CONSUMER, stream=STREAM)


async def one(pull: JetStreamContext.PullSubscription) -> Msg:
    """The next delivery."""
    return (await pull.fetch(1, timeout=PATIENCE_S))[0]


async def nothing_comes(pull: JetStreamContext.PullSubscription) -> None:
    with pytest.raises(nats.errors.TimeoutError):
        await pull.fetch(1, timeout=SILENCE_S)


async def queued(client: Client) -> int:
    """Messages on the work queue, delivered or not."""
    return int((await client.jetstream().stream_info(STREAM)).state.messages)


async def holds(client: Client, number: int) -> bool:
    return await queued(client) == number


async def answer(client: Client, delivery: Msg, verb: bytes, timeout_s: float = PATIENCE_S) -> bytes:
    """What the server says to a confirmed ack, beat or TERM of `delivery`."""
    return bytes((await client.request(delivery.reply, verb, timeout=timeout_s)).data)


async def taken_over(client: Client) -> tuple[JetStreamContext.PullSubscription, Msg, Msg]:
    """A message whose first delivery outlived its lease, and whose second is held: what pulls, and the two."""
    pull = await work_queue(client, 1, backoff=[LEASE_S, HELD_S], max_deliver=10)
    lost, held = await one(pull), await one(pull)
    assert (lost.metadata.num_delivered, held.metadata.num_delivered) == (1, 2)
    return pull, lost, held


async def delivered_before_a_crash(server: EmbeddedServer) -> Msg:
    """The last of three deliveries on a new work queue, after which the server was killed and started again.

    The server writes a consumer's state at most every 100 ms, so it has usually not written the last one.
    """
    async with connected(server) as client:
        pull = await work_queue(client, 3, ack_wait=HELD_S)
        last = [await one(pull) for _ in range(3)][-1]
        await server.stop(kill=True)
    await server.start()
    return last


async def all_of(pull: JetStreamContext.PullSubscription, number: int) -> list[Msg]:
    """So many deliveries."""
    found: list[Msg] = []
    while len(found) < number:
        found += await pull.fetch(number - len(found), timeout=PATIENCE_S)
    return found


# Who may speak for a delivery: anybody, at any time.


async def test_an_ack_of_a_lost_lease_removes_the_message_under_its_new_holder(server: EmbeddedServer) -> None:
    """Nobody compares the delivery an ack names with the one that is held: if its new holder died now, the message
    would be lost. So a worker acks only after the Result exists, whoever wrote it; then a late ack harms nobody.
    """
    async with connected(server) as client:
        _, lost, held = await taken_over(client)
        assert await queued(client) == 1
        assert await answer(client, lost, b"+ACK") == b""
        assert await queued(client) == 0
        assert await answer(client, held, b"+ACK") == b"", "the new holder is not told either"


def is_after(instant_s: float) -> bool:
    return time.monotonic() >= instant_s


async def test_a_beat_of_a_lost_lease_prolongs_the_lease_of_its_new_holder(server: EmbeddedServer) -> None:
    """A worker that hangs on to a job it lost would keep everybody else from a job whose holder died. So a lease is
    the worker's own clock, and a worker stops beating for a job when that clock says it is lost.
    """
    for _ in range(TRIALS):
        async with connected(server) as client:
            pull = await work_queue(client, 1, ack_wait=LEASE_S)
            asked_s = time.monotonic()
            lost = await one(pull)
            await one(pull)
            taken_s = time.monotonic()
            await wait_until(partial(is_after, taken_s + LEASE_S / 2))  # half of the new holder's lease has passed
            beat_s = time.monotonic()
            await answer(client, lost, b"+WPI")
            confirmed_s = time.monotonic()
            third = await one(pull)
            came_s = time.monotonic()
            await client.jetstream().delete_stream(STREAM)
        if confirmed_s < asked_s + 2 * LEASE_S:  # else the machine was too busy for the beat to come in time for sure
            assert third.metadata.num_delivered == 3
            assert came_s >= beat_s + LEASE_S * 0.9
            return
    pytest.fail("the machine is too busy: no beat came in time")


async def test_a_beat_is_confirmed_for_a_lost_lease_and_for_a_message_that_is_gone(server: EmbeddedServer) -> None:
    """A confirmed beat proves that the server is there, and not that the job is still ours. So a worker does not
    learn from its beats that it lost a job: its own clock and a refused publish to the journal tell it.
    """
    async with connected(server) as client:
        _, lost, held = await taken_over(client)
        assert await answer(client, lost, b"+WPI") == b""
        await held.ack_sync(timeout=PATIENCE_S)
        assert await queued(client) == 0
        assert await answer(client, lost, b"+WPI") == b""
        assert await answer(client, held, b"+WPI") == b""


async def test_a_nak_of_a_lost_lease_delivers_the_message_again_at_once(server: EmbeddedServer) -> None:
    """A third delivery starts beside the second, whose lease has not ended. So a worker gives a job back only while
    its own lease holds; and each attempt's events are refused by the journal once another attempt wrote there.
    """
    async with connected(server) as client:
        pull, lost, _ = await taken_over(client)
        began_s = time.monotonic()
        await client.publish(lost.reply, b"-NAK")
        assert (await one(pull)).metadata.num_delivered == 3
        assert time.monotonic() - began_s < HELD_S / 2


async def test_a_term_of_a_lost_lease_removes_the_message_under_its_new_holder(server: EmbeddedServer) -> None:
    """So a worker never ends a job with TERM: it stores a Result that says why, and acks."""
    async with connected(server) as client:
        _, lost, _ = await taken_over(client)
        await answer(client, lost, b"+TERM")
        await wait_until(lambda: holds(client, 0))


# What a crash of the server forgets.


async def test_deliveries_may_be_counted_from_one_again_after_a_crash(server: EmbeddedServer) -> None:
    """The count of deliveries is not monotonic, so it is no fence and no budget: attempts are counted in the job's
    own events, and each attempt is fenced by the journal. That the message comes again is sure.
    """
    for _ in range(TRIALS):
        last = await delivered_before_a_crash(server)
        assert last.metadata.num_delivered == 1
        async with connected(server) as client:
            await client.publish(last.reply, b"-NAK")  # ends its lease, if the server remembers it
            again = await redelivery(await pulling(client), last)
            await client.jetstream().delete_stream(STREAM)
        if again.metadata.num_delivered == 1:
            return
        assert again.metadata.num_delivered == 2
    pytest.fail(f"{TRIALS} times the count went on; is it written before the delivery is sent now?")


async def redelivery(pull: JetStreamContext.PullSubscription, delivery: Msg) -> Msg:
    """The next delivery of the same message; the others before it are passed over."""
    while True:
        again = await one(pull)
        if again.metadata.sequence.stream == delivery.metadata.sequence.stream:
            return again


async def test_an_ack_may_go_unanswered_when_its_delivery_was_forgotten_in_a_crash(server: EmbeddedServer) -> None:
    """The server has forgotten that it delivered the message: it ignores the ack, keeps the message and delivers it
    again. So a worker does not wait for ever for a confirmed ack, and looks for the Result first when a job comes
    again. An ack that is confirmed did remove the message.
    """
    for _ in range(TRIALS):
        last = await delivered_before_a_crash(server)
        async with connected(server) as client:
            is_confirmed = True
            try:
                await answer(client, last, b"+ACK", timeout_s=1.0)
            except nats.errors.TimeoutError:
                is_confirmed = False
            left = await queued(client)
            if not is_confirmed and left == 3:
                assert (await redelivery(await pulling(client), last)).data == last.data
                return
            assert left == 2
            await client.jetstream().delete_stream(STREAM)
    pytest.fail(f"{TRIALS} times the ack was taken; are deliveries written before they are sent now?")


async def test_confirmed_acks_survive_a_crash(server: EmbeddedServer) -> None:
    """So a worker asks for a confirmation of its ack, and asks again until it comes."""
    for _ in range(3):
        async with connected(server) as client:
            deliveries = await all_of(await work_queue(client, BATCH, ack_wait=HELD_S), BATCH)
            await asyncio.gather(*(delivery.ack_sync(timeout=PATIENCE_S) for delivery in deliveries))
            await server.stop(kill=True)
        await server.start()
        async with connected(server) as client:
            assert await queued(client) == 0
            await client.jetstream().delete_stream(STREAM)


async def test_plain_acks_that_the_server_has_read_may_be_lost_in_a_crash(tmp_path: Path) -> None:
    """So an ack without a confirmation is never relied on: the job would come again although it has its Result.

    The server syncs every write here, which makes removing messages slow: usually nearly all are still there.
    """
    syncing = f'jetstream {{ store_dir: "{tmp_path / "nats" / "jetstream"}", sync_interval: always }}'
    server = EmbeddedServer(tmp_path / "nats", extra=syncing)
    try:
        for _ in range(TRIALS):
            await server.start()
            async with connected(server) as client:
                deliveries = await all_of(await work_queue(client, BATCH, ack_wait=HELD_S), BATCH)
                for delivery in deliveries:
                    await delivery.ack()
                await client.jetstream().account_info()  # on the same connection: the acks before it have been read
                await server.stop(kill=True)
            await server.start()
            async with connected(server) as client:
                if await queued(client):
                    return
                await client.jetstream().delete_stream(STREAM)
        pytest.fail(f"{TRIALS} times no plain ack was lost; are acks written before they are queued now?")
    finally:
        await server.stop(kill=True)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_message_id_is_forgotten_by_a_restart_once_its_message_was_acked(
    server: EmbeddedServer, kill: bool
) -> None:
    """Inside the window in which the server drops duplicates. So the id is only the quick way to drop a second submit
    of a job: a worker begins one only if its journal is empty, and its Result is created, never overwritten.
    """

    async def is_duplicate(client: Client, message_id: str) -> bool:
        ack = await client.jetstream().publish(SUBJECT, b"", headers={"Nats-Msg-Id": message_id})
        return bool(ack.duplicate)

    async with connected(server) as client:
        pull = await work_queue(client, 0, ack_wait=HELD_S)
        assert not await is_duplicate(client, "done")
        await (await one(pull)).ack_sync(timeout=PATIENCE_S)
        assert not await is_duplicate(client, "waiting")
        assert await is_duplicate(client, "done")
        await server.stop(kill=kill)
    await server.start()
    async with connected(server) as client:
        assert await is_duplicate(client, "waiting")
        assert not await is_duplicate(client, "done")
        assert await queued(client) == 2


async def test_nats_py_sends_after_a_reconnect_what_was_published_without_a_connection(server: EmbeddedServer) -> None:
    """Tokens of an attempt that lost its job meanwhile would arrive late. So mesh's own connection refuses to publish
    while there is none, and every event names the one it follows, or the journal refuses it.
    """
    async with connected(server, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.02) as client:
        await work_queue(client, 0)
        await server.stop(kill=True)
        await wait_until(lambda: not client.is_connected)
        for number in range(5):
            await client.publish(SUBJECT, b"%d" % number)
        await server.start()
        async with connected(server) as other:
            await wait_until(lambda: holds(other, 5))


# What becomes of a message that was delivered too often.


@pytest.mark.slow
async def test_nobody_is_told_of_exhausted_deliveries_until_somebody_pulls(server: EmbeddedServer) -> None:
    """When a request has ended every worker that took it, no advisory comes until a worker is back. So dead letters
    do not hang on advisories: the worker that meets an exhausted job buries it before it stores the Result.
    """
    async with connected(server) as client:
        pull = await work_queue(client, 1, ack_wait=LEASE_S, max_deliver=2)  # with 1 it would be told at once
        told = await client.subscribe(MAX_DELIVERIES)
        assert [(await one(pull)).metadata.num_delivered for _ in range(2)] == [1, 2]
        with pytest.raises(nats.errors.TimeoutError):
            await told.next_msg(timeout=4 * LEASE_S)
        await nothing_comes(pull)
        advisory = json.loads((await told.next_msg(timeout=PATIENCE_S)).data)
        assert (advisory["stream_seq"], advisory["deliveries"]) == (1, 2)


@pytest.mark.slow
async def test_an_exhausted_message_stays_on_the_queue_and_is_never_delivered_again(server: EmbeddedServer) -> None:
    """Not after a restart either: nothing would ever answer its client. So `max_deliver` is set far above what
    restarts and hand-backs use up, and a worker ends a job when its own events say that it was tried too often.
    """
    async with connected(server) as client:
        pull = await work_queue(client, 1, ack_wait=LEASE_S, max_deliver=2)
        told = await client.subscribe(MAX_DELIVERIES)
        assert [(await one(pull)).metadata.num_delivered for _ in range(2)] == [1, 2]
        await nothing_comes(pull)
        await told.next_msg(timeout=PATIENCE_S)
        await server.stop()
    await server.start()
    async with connected(server) as client:
        await nothing_comes(await pulling(client))
        assert await queued(client) == 1
