"""What a tenant may use is held to before an engine is asked, whichever way its requests come."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.broker.stores.quotas import write_limits
from mesh.control.tenants.limits import Allowed, all_limits, limit
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.policies.quota import QuotaLimits, day_of
from mesh.protocol import headers
from mesh.worker.worker import Worker
from tests.running import MODEL, RunningMesh, present, running_mesh, wait_until


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh without a worker."""
    async with running_mesh(tmp_path / "nats") as running:
        yield running


def _knows(worker: Worker, tenant: str, wanted: QuotaLimits | None) -> bool:
    return worker._gate._quotas.of(tenant) == wanted


async def allow(mesh: RunningMesh, tenant: str | None, **limits: Any) -> Allowed:
    """Set limits, and wait until every worker has heard of them."""
    allowed = await limit(mesh.broker, tenant, limits, is_cleared=True)
    wanted = None if allowed.limits.is_empty else allowed.limits
    for worker in mesh.workers:
        await wait_until(partial(_knows, worker, tenant or "anybody", wanted))
    return allowed


async def at_the_door(mesh: RunningMesh, tenant: str = "default", **fields: Any) -> tuple[int, dict[str, Any]]:
    """The number of a refusal and its headers, or 200 and the Result."""
    ask = json.dumps({"prompt": "Hello", "max_tokens": 2} | fields).encode()
    header, body = await mesh.connection.request(f"mesh.rpc.{tenant}.{MODEL}", ask, timeout_s=20)
    if body:
        return 200, json.loads(body)
    found = headers.parse(header)
    return int(found["Nats-Service-Error-Code"]), found


async def test_nobody_is_limited_where_nobody_said_so(mesh: RunningMesh) -> None:
    assert (await at_the_door(mesh))[0] == 200
    answer = await mesh.connection.request("$JS.API.STREAM.NAMES")
    assert not {"MESH_USAGE", "KV_mesh_tenants"} & set(json.loads(answer[1])["streams"])


async def test_more_requests_than_a_minute_may_have_are_told_when_to_come_again(mesh: RunningMesh) -> None:
    await allow(mesh, "default", requests_per_minute=3)
    answers = [await at_the_door(mesh) for _ in range(8)]
    numbers = [number for number, _ in answers]
    assert numbers.count(429) >= 2, "three in each of the two minutes that this may touch"
    refused = next(found for number, found in answers if number == 429)
    assert refused["Mesh-Error-Code"] == "quota_exceeded"
    assert 0 < int(refused["Mesh-Retry-After-Ms"]) <= 60_000
    assert "more than 3 requests in this minute; try again in" in refused["Nats-Service-Error"]
    assert (await at_the_door(mesh, tenant="other"))[0] == 200, "it is nobody else's limit"


async def test_front_doors_count_together(bare: RunningMesh) -> None:
    for _ in range(3):
        await bare.start_worker()
    await allow(bare, "default", requests_per_minute=10)
    answers = await asyncio.gather(*(at_the_door(bare) for _ in range(40)))
    assert sum(1 for number, _ in answers if number == 200) in (10, 20), "10, or both sides of a minute's end"


async def test_requests_straight_into_the_queue_are_held_to_the_same(bare: RunningMesh) -> None:
    """Counted by the minute in which they were stored, so that a queue that waited is not punished for it."""
    await limit(bare.broker, "default", {"requests_per_minute": 5}, is_cleared=True)
    async with mesh_api.connect(bare.url) as client:
        jobs = [await client.submit(MODEL, f"Hello {number}", max_tokens=2) for number in range(15)]
        await bare.start_worker()
        results = await asyncio.gather(*(job.result(30) for job in jobs))
    refused = [result for result in results if result.status == "failed"]
    assert len(refused) in (5, 10)
    assert {present(result.error).code for result in refused} == {"quota_exceeded"}
    assert all(
        "try again in" in present(result.error).message and present(result.error).retryable for result in refused
    )
    assert all(result.usage.completion_tokens == 0 and result.attempts == 0 for result in refused)
    await bare.wait_queue_empty()


async def test_a_job_that_is_handed_out_again_is_counted_once(bare: RunningMesh) -> None:
    """It waits for its turn, and is handed out and back meanwhile."""
    await limit(bare.broker, "default", {"requests_per_minute": 2, "running": 1}, is_cleared=True)
    await bare.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=10))
    async with mesh_api.connect(bare.url) as client:
        asked = [client.generate(MODEL, text, max_tokens=100) for text in ("First", "Second")]
        results = await asyncio.gather(*asked)
    assert [result.status for result in results] == ["finished", "finished"]


async def test_the_tokens_of_a_day_are_counted_and_end_with_it(mesh: RunningMesh) -> None:
    await allow(mesh, "default", tokens_per_day=20)
    async with mesh_api.connect(mesh.url) as client:
        assert (await client.generate(MODEL, "Hello", max_tokens=30)).status == "finished"

        async def is_used_up() -> bool:
            return (await at_the_door(mesh))[0] == 429

        await wait_until(is_used_up)
        number, found = await at_the_door(mesh)
        assert number == 429
        assert int(found["Mesh-Retry-After-Ms"]) <= 86_400_000
        result = await client.generate(MODEL, "Hello", max_tokens=2)
        assert result.error is not None
        assert (result.status, result.error.code) == ("failed", "quota_exceeded")
        subject = f"mesh.sys.usage.default.tokens.{day_of(time.time_ns() // 1_000_000)}"
        counted = await mesh.connection.request(f"$JS.API.DIRECT.GET.MESH_USAGE.{subject}")
        assert int(json.loads(counted[1])["val"]) >= 31
        await allow(mesh, "default")
        assert (await client.generate(MODEL, "Hello", max_tokens=2)).status == "finished"


@pytest.mark.parametrize(
    ("limits", "fields", "field"),
    [
        ({"max_tokens": 10}, {"max_tokens": 11}, "max_tokens"),
        ({"max_tokens": 255}, {"max_tokens": None}, "max_tokens"),
        ({"prompt_bytes": 20}, {"prompt": "x" * 21}, "prompt"),
        ({"prompt_bytes": 20}, {"prompt": None, "prompt_token_ids": [1000] * 20}, "prompt_token_ids"),
        ({"prompt_bytes": 20}, {"prompt": None, "messages": [{"role": "user", "content": "x" * 20}]}, "messages"),
    ],
)
async def test_what_is_too_large_for_a_tenant_is_refused_on_both_ways(
    mesh: RunningMesh, limits: dict[str, int], fields: dict[str, Any], field: str
) -> None:
    await allow(mesh, "default", **limits)
    asked: dict[str, Any] = {
        key: value for key, value in ({"prompt": "Hello", "max_tokens": 2} | fields).items() if value is not None
    }
    ask = json.dumps(asked).encode()
    header, _ = await mesh.connection.request(f"mesh.rpc.default.{MODEL}", ask, timeout_s=10)
    found = headers.parse(header)
    assert (found["Nats-Service-Error-Code"], found["Mesh-Error-Field"]) == ("413", field)
    async with mesh_api.connect(mesh.url) as client:
        result = await client.generate(MODEL, **asked)
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "too_large")
    assert "this tenant's limit" in result.error.message


async def test_a_queue_that_is_long_enough_takes_no_more_at_the_door(bare: RunningMesh) -> None:
    await bare.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=20))
    await allow(bare, "default", queued=2)
    async with mesh_api.connect(bare.url) as client:
        jobs = [await client.submit(MODEL, "Long", max_tokens=1000) for _ in range(2)]
        number, found = await at_the_door(bare)
        assert (number, found["Mesh-Retry-After-Ms"]) == (429, "1000")
        for job in jobs:
            await job.cancel()
        await bare.wait_queue_empty()
    assert (await at_the_door(bare))[0] == 200


async def test_no_more_jobs_run_at_once_than_allowed_over_all_workers(bare: RunningMesh) -> None:
    workers = [await bare.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=10)) for _ in range(2)]
    await allow(bare, "default", running=3)
    most = 0
    async with mesh_api.connect(bare.url) as client:
        jobs = [await client.submit(MODEL, f"Hello {number}", max_tokens=40) for number in range(9)]
        other = mesh_api.connect(bare.url, tenant="other")
        waiting = asyncio.gather(*(job.result(40) for job in jobs))
        while not waiting.done():
            most = max(most, sum(len(worker._gate._held) for worker in workers))
            await asyncio.sleep(0.01)
        async with other as neighbour:
            assert (await neighbour.generate(MODEL, "Hello", max_tokens=2)).status == "finished"
        assert {result.status for result in await waiting} == {"finished"}
    assert most == 3


async def test_a_place_is_not_lost_with_the_worker_that_held_it(bare: RunningMesh) -> None:
    """Its places lapse with its beats; the job goes on elsewhere, in a place of its own."""
    settings = SimulatorSettings(model=MODEL, between_tokens_ms=30)
    await bare.start_worker(settings)
    await allow(bare, "default", running=1)
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Long enough", max_tokens=60)
        async for _ in job:
            break
        first = bare.workers[0]
        assert len(first._gate._held) == 1
        bare.tasks[0].cancel()  # how it drains is a test of its own
        first._gate._slots.release = lambda slot: None  # type: ignore[method-assign]  # as if it had been killed: it says nothing
        await bare.start_worker(settings)
        result = await job.result(40)
        assert (result.status, result.usage.completion_tokens) == ("finished", 60)


async def test_defaults_hold_for_those_without_limits_of_their_own(mesh: RunningMesh) -> None:
    await allow(mesh, None, max_tokens=5)
    await allow(mesh, "large", max_tokens=500)
    assert (await at_the_door(mesh, tenant="anybody", max_tokens=6))[0] == 413
    assert (await at_the_door(mesh, tenant="large", max_tokens=6))[0] == 200
    shown = {each.tenant: each.limits for each in await all_limits(mesh.broker)}
    assert shown == {None: QuotaLimits(max_tokens=5), "large": QuotaLimits(max_tokens=500)}


async def test_limits_that_cannot_be_read_limit_nobody(mesh: RunningMesh) -> None:
    await allow(mesh, "default", max_tokens=5)
    await mesh.connection.request(mesh.names.limits_key("garbled"), b"{not json")
    await write_limits(mesh.broker, "other", QuotaLimits(max_tokens=1))
    await wait_until(lambda: mesh.workers[0]._gate._quotas.of("other") is not None)
    assert mesh.workers[0]._gate._quotas.of("garbled") is None
    assert (await at_the_door(mesh, max_tokens=6))[0] == 413


async def test_a_limit_out_of_range_is_refused(mesh: RunningMesh) -> None:
    for key, value in (("running", 0), ("running", 1001), ("queued", -1), ("tokens_per_day", -1), ("max_tokens", 0)):
        with pytest.raises(errors.ConfigError, match=f"{key.replace('_', '-')} = {value} is not between"):
            await limit(mesh.broker, "default", {key: value}, is_cleared=False)
