"""The limits of a tenant at the last door before the engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.purge import purge_subject
from mesh.broker.stores.quota_slots import Slots
from mesh.broker.stores.quotas import Quotas, write_limits
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection
from mesh.errors import QuotaExceededError, TooLargeError
from mesh.policies.quota import QuotaLimits
from mesh.protocol.messages import Request, Result, Usage
from mesh.server import EmbeddedServer
from mesh.worker import quota_gate
from mesh.worker.quota_gate import QuotaGate
from tests.running import wait_until
from tests.wire import delivery_of

NOW = 1_700_000_000_000
ONE = ("t", 1)
TWO = ("t", 2)


@pytest.fixture
async def quota_mesh(broker: Broker) -> None:
    """A mesh in which limits can be kept."""
    await topology.apply(broker.connection, await topology.plan_quota(broker, MeshSettings(lanes=1)))


async def gate_of(broker: Broker, worker: str) -> QuotaGate:
    gate = QuotaGate(Quotas(broker), Slots(broker, worker))
    await gate.prepare()
    return gate


@pytest.fixture
async def gate(broker: Broker, quota_mesh: None) -> AsyncIterator[QuotaGate]:
    made = await gate_of(broker, "w-1")
    yield made
    made.close()


@pytest.fixture
async def other(peer: Broker, quota_mesh: None) -> AsyncIterator[QuotaGate]:
    """Another worker's."""
    made = await gate_of(peer, "w-2")
    yield made
    made.close()


async def limit(broker: Broker, limits: QuotaLimits, *gates: QuotaGate) -> None:
    await write_limits(broker, "t", limits)
    for each in gates:
        await each.prepare()


async def lapse(broker: Broker, gate: QuotaGate) -> None:
    """The place of job ONE is forgotten, as one that was not renewed for three beats."""
    bucket = f"KV_{broker.names.workers_bucket}"
    await purge_subject(broker.connection, bucket, broker.names.slot_key("t", 0), gate._held[ONE].sequence)


async def settled(connection: Connection) -> None:
    await connection.request("$JS.API.INFO")


async def test_a_tenant_without_limits_takes_no_place(gate: QuotaGate, broker: Broker) -> None:
    assert gate.is_open_to("t")
    assert all([await gate.take(("t", number)) for number in range(20)])


async def test_limits_hold_for_the_tenant_that_has_them(gate: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(running=1), gate)
    assert not gate.is_open_to("t")
    assert gate.is_open_to("u")


async def test_as_many_jobs_run_as_there_are_places_over_all_workers(
    gate: QuotaGate, other: QuotaGate, broker: Broker
) -> None:
    await limit(broker, QuotaLimits(running=2), gate, other)
    assert await gate.take(("t", 1))
    assert await other.take(("t", 2))
    assert not await gate.take(("t", 3))
    assert not await other.take(("t", 4))
    assert await other.take(("u", 5)), "another tenant's places are its own"


async def test_a_job_that_has_its_place_takes_no_second(gate: QuotaGate, other: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(running=2), gate, other)
    assert await gate.take(ONE)
    assert await gate.take(ONE)
    assert await other.take(TWO)


async def test_a_place_that_was_left_is_the_next_ones(gate: QuotaGate, other: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(running=1), gate, other)
    assert await gate.take(ONE)
    assert not await other.take(TWO)
    gate.leave(ONE)
    gate.leave(ONE)
    await settled(broker.connection)
    assert await other.take(TWO)


async def test_a_worker_that_closes_gives_its_places_back(gate: QuotaGate, other: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(running=2), gate, other)
    assert await gate.take(ONE)
    assert await gate.take(TWO)
    gate.close()
    await settled(broker.connection)
    assert await other.take(("t", 3))
    assert await other.take(("t", 4))


async def test_a_place_whose_holder_was_away_is_not_taken_from_who_has_it_now(
    gate: QuotaGate, other: QuotaGate, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key lapsed, another took it; the first finds out when it renews, and then gives nothing back."""
    monkeypatch.setattr(quota_gate, "PRESENCE_BEAT_S", 0.02)
    await limit(broker, QuotaLimits(running=1), gate, other)
    assert await gate.take(ONE)
    await lapse(broker, gate)
    assert await other.take(TWO)
    keeping = asyncio.create_task(gate.run())
    await wait_until(lambda: not gate._held)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    gate.leave(ONE)
    await settled(broker.connection)
    assert not await gate.take(("t", 3)), "the other one's job still runs"


async def test_a_place_that_is_left_too_late_stays_with_who_has_it_now(
    gate: QuotaGate, other: QuotaGate, broker: Broker
) -> None:
    """The first does not know yet that its place lapsed: the server refuses that it gives it back."""
    await limit(broker, QuotaLimits(running=1), gate, other)
    assert await gate.take(ONE)
    await lapse(broker, gate)
    assert await other.take(TWO)
    gate.leave(ONE)
    await settled(broker.connection)
    assert not await gate.take(("t", 3))


async def test_a_place_is_kept_while_its_job_runs(
    gate: QuotaGate, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_gate, "PRESENCE_BEAT_S", 0.02)
    await limit(broker, QuotaLimits(running=1), gate)
    assert await gate.take(ONE)
    before = gate._held[ONE].sequence
    keeping = asyncio.create_task(gate.run())
    await wait_until(lambda: gate._held[ONE].sequence > before + 1)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_job_that_ends_while_its_place_is_renewed_gives_it_back(
    gate: QuotaGate, other: QuotaGate, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(broker, QuotaLimits(running=1), gate, other)
    assert await gate.take(ONE)
    renewing = asyncio.create_task(gate._renew(ONE, gate._held[ONE]))
    await asyncio.sleep(0)  # the renewal is on its way
    gate.leave(ONE)
    await renewing
    await settled(broker.connection)
    assert await other.take(TWO)


async def test_without_an_answer_no_place_is_taken(
    gate: QuotaGate, broker: Broker, mesh_server: EmbeddedServer
) -> None:
    """A limit on what runs at once is kept rather than broken: the job waits."""
    await limit(broker, QuotaLimits(running=1), gate)
    await mesh_server.stop(kill=True)
    await wait_until(lambda: not broker.connection.is_connected)
    assert not await gate.take(ONE)


async def test_a_job_beyond_a_limit_is_refused_with_the_time_to_try_again(gate: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(requests_per_minute=1), gate)
    assert await gate.refusal(delivery_of(job="j1"), NOW) is None
    refused = await gate.refusal(delivery_of(job="j2"), NOW)
    assert isinstance(refused, QuotaExceededError)
    assert refused.retry_after_ms is not None


async def test_a_job_that_is_delivered_again_counts_once(gate: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(requests_per_minute=1), gate)
    for _ in range(3):
        assert await gate.refusal(delivery_of(job="j1"), NOW) is None


async def test_a_request_that_is_too_large_for_its_tenant_is_refused(gate: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(max_tokens=4), gate)
    refused = await gate.refusal(delivery_of(Request(id="j", prompt="a", max_tokens=5)), NOW)
    assert isinstance(refused, TooLargeError)
    assert await gate.refusal(delivery_of(Request(id="j", prompt="a", max_tokens=4)), NOW) is None


async def test_what_was_spent_counts_once_for_each_job(gate: QuotaGate, broker: Broker) -> None:
    await limit(broker, QuotaLimits(tokens_per_day=10), gate)
    usage = Usage(prompt_tokens=3, completion_tokens=6)
    result = Result(id="j1", tenant="t", model="m", status="finished", text="a", usage=usage)
    await gate.spent(result, NOW)
    await gate.spent(result, NOW)
    assert await gate.refusal(delivery_of(job="j2"), NOW) is None
    last = Result(id="j2", tenant="t", model="m", status="finished", text="a", usage=Usage(prompt_tokens=1))
    await gate.spent(last, NOW)
    assert isinstance(await gate.refusal(delivery_of(job="j3"), NOW), QuotaExceededError)


async def test_where_nobody_says_what_was_used_the_job_goes_ahead(
    gate: QuotaGate, broker: Broker, mesh_server: EmbeddedServer
) -> None:
    """Work that was accepted is worth more than a count."""
    await limit(broker, QuotaLimits(tokens_per_day=10), gate)
    await mesh_server.stop(kill=True)
    await wait_until(lambda: not broker.connection.is_connected)
    assert await gate.refusal(delivery_of(), NOW) is None
