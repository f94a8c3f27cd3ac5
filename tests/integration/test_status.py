"""What a look at a mesh sees: depth, ages, workers, stores."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

import mesh as api
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.control.status import snapshot
from mesh.control.status.checks import findings
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import BrokerError
from mesh.protocol.subjects import Names
from mesh.verify.soak.servers import Servers
from mesh.worker.worker import WorkerOptions
from tests.running import MODEL, RunningMesh, present, running_mesh, wait_until

SLOW = SimulatorSettings(model=MODEL, between_tokens_ms=50.0)


async def submit(url: str, tenant: str, count: int, tier: str = "standard", prefix: str = "j") -> None:
    async with api.connect(url, tenant=tenant) as client:
        fields: dict[str, Any] = {"tier": tier, "max_tokens": 1000, "ignore_eos": True}
        await asyncio.gather(*(client.submit(MODEL, f"{n}", id=f"{prefix}{n}", **fields) for n in range(count)))


async def test_a_look_counts_jobs_by_model_tier_and_tenant_with_the_age_of_the_oldest(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", topology.MeshSettings(lanes=2)) as mesh:
        await submit(mesh.url, "a", 3)
        await submit(mesh.url, "b", 4)
        await submit(mesh.url, "b", 2, "batch", "low")
        seen = await snapshot.snapshot(mesh.broker)
        queues = {each.tier: each for each in seen.queues}
        assert {tier: (each.jobs, each.waiting, each.in_flight) for tier, each in queues.items()} == {
            "interactive": (0, 0, 0),
            "standard": (7, 7, 0),
            "batch": (2, 2, 0),
        }
        assert [(each.tenant, each.jobs) for each in queues["standard"].tenants] == [("b", 4), ("a", 3)]
        assert queues["interactive"].oldest_ms is None
        batch_ms, standard_ms = (present(queues[tier].oldest_waiting_ms) for tier in ("batch", "standard"))
        assert 0 <= batch_ms <= standard_ms < 10_000
        assert (seen.workers, seen.missing, seen.dead_letters, seen.unroutable) == ([], [], 0, 0)


async def test_a_look_tells_what_runs_from_what_waits(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", topology.MeshSettings(lanes=2)) as mesh:
        await mesh.start_worker(SLOW, WorkerOptions(model=MODEL, capacity=2))
        await submit(mesh.url, "a", 2)

        async def is_full() -> bool:
            seen = await snapshot.snapshot(mesh.broker)
            return [each.presence.running for each in seen.workers] == [2]

        await wait_until(is_full)  # which a worker says with its next beat
        await submit(mesh.url, "a", 4, prefix="late")
        seen = await snapshot.snapshot(mesh.broker)
        standard = next(each for each in seen.queues if each.tier == "standard")
        # A worker with fewer slots than lanes hands some jobs back; those count as given, too.
        assert standard.jobs == 6 == standard.waiting + standard.in_flight
        assert standard.in_flight >= 2
        assert present(standard.oldest_waiting_ms) < present(standard.oldest_ms)
        assert 0 <= seen.workers[0].age_ms < 6000


async def test_a_worker_that_waits_for_jobs_is_seen_by_its_pulls_and_rates_by_what_it_did(mesh: RunningMesh) -> None:
    async def is_waiting() -> bool:  # between one pull and the next there is none
        seen = await snapshot.snapshot(mesh.broker)
        return all(each.pulls > 0 for each in seen.queues)

    await wait_until(is_waiting)
    before = await snapshot.snapshot(mesh.broker)
    async with api.connect(mesh.url) as client:
        for number in range(5):
            await client.generate(MODEL, f"{number}", max_tokens=10)

    async def has_told() -> bool:
        after = await snapshot.snapshot(mesh.broker)
        return after.workers[0].presence.finished == 5

    await wait_until(has_told)
    after = await snapshot.snapshot(mesh.broker)
    found = snapshot.rates(before, after, mesh.names)
    assert round(found.submitted_per_s * found.span_s) == round(found.ended_per_s * found.span_s) == 5
    (model,) = found.models
    assert round(model.submitted_per_s * found.span_s) == 5
    assert present(found.workers[0].tokens_per_s) > 0
    assert found.tokens_per_s == model.tokens_per_s == found.workers[0].tokens_per_s


async def test_a_look_says_what_server_and_stores_there_are(mesh: RunningMesh) -> None:
    seen = await snapshot.snapshot(mesh.broker)
    assert seen.server.version == mesh.connection.server_version
    assert seen.server.rtt_ms > 0
    assert seen.server.max_payload_bytes == mesh.connection.max_payload
    assert [(each.name, each.kind) for each in seen.stores] == [
        ("MESH_REQUESTS", "stream"),
        ("MESH_EVENTS", "stream"),
        ("MESH_DEAD", "stream"),
        ("MESH_AUDIT", "stream"),
        ("mesh_results", "bucket"),
        ("mesh_workers", "bucket"),
    ]
    events = seen.store("MESH_EVENTS")
    assert events is not None
    assert (events.max_bytes, events.max_age_ms, bool(events.leader)) == (1 << 30, 900_000, True)


async def test_a_stream_that_is_missing_is_named_and_the_rest_still_seen(mesh: RunningMesh) -> None:
    for stream in ("MESH_AUDIT", "KV_mesh_workers"):
        await mesh.connection.request(f"$JS.API.STREAM.DELETE.{stream}")
    seen = await snapshot.snapshot(mesh.broker)
    assert seen.missing == ["MESH_AUDIT", "mesh_workers"]
    assert seen.workers == []


async def test_a_stream_that_the_operator_asked_for_is_looked_for(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", topology.MeshSettings(record_days=1)) as mesh:
        record = mesh.names.record_stream
        assert (await snapshot.snapshot(mesh.broker)).store(record) is not None
        await mesh.connection.request(f"$JS.API.STREAM.DELETE.{record}")
        assert (await snapshot.snapshot(mesh.broker)).missing == [record]


async def test_requests_for_nobody_are_counted_apart(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        for subject in ("mesh.req.typo.standard.default.x", "mesh.req.what"):
            await mesh.connection.request(subject, b"{}")
        seen = await snapshot.snapshot(mesh.broker)
        typo = next(each for each in seen.queues if each.model == "typo")
        assert (typo.jobs, typo.waiting, typo.is_declared, seen.unroutable) == (1, 1, False, 1)
        assert present(typo.oldest_waiting_ms) >= 0


async def test_a_look_at_ten_thousand_jobs_is_quick(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        for number in range(10_000):
            subject = mesh.names.request(MODEL, "batch", f"t{number % 300}", f"a{number}")
            mesh.connection.publish(subject, b'{"prompt": "Hi"}')
            if number % 500 == 499:
                await mesh.connection.request("$JS.API.INFO")

        async def all_there() -> bool:
            return await mesh.queued() == 10_000

        await wait_until(all_there)
        began = time.monotonic()
        seen = await snapshot.snapshot(mesh.broker)
        assert time.monotonic() - began < 2.0
        batch = next(each for each in seen.queues if each.tier == "batch")
        assert (batch.jobs, batch.waiting, len(batch.tenants)) == (10_000, 10_000, 300)


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_server_of_a_cluster_that_is_gone_is_named_and_the_rest_still_seen(tmp_path: Path) -> None:
    servers, names = Servers(tmp_path, 3), Names()
    await servers.start()
    try:
        async with connect(ConnectOptions(servers=(servers.urls[0],), name="test")) as connection:
            await servers.declare(Broker(connection, names), topology.MeshSettings(replicas=3), MODEL)
            await wait_until(lambda: has(Broker(connection, names), "replica", False), 30)  # every copy is made
            await servers.kill(servers.all[2])

            async def is_named() -> bool:
                with contextlib.suppress(BrokerError):  # until there are leaders again
                    found = findings(await snapshot.snapshot(Broker(connection, names)), names)
                    return any(each.text.startswith("server n3 is away") for each in found)
                return False

            await wait_until(is_named, 40)
            seen = await snapshot.snapshot(Broker(connection, names))
            assert (seen.server.cluster, len(seen.stores), seen.missing) == ("soak", 6, [])
    finally:
        await servers.stop()


async def has(broker: Broker, code: str, wanted: bool) -> bool:
    """Whether there is a finding of this code, or none."""
    with contextlib.suppress(BrokerError):
        found = findings(await snapshot.snapshot(broker), broker.names)
        return any(each.code == code for each in found) is wanted
    return False
