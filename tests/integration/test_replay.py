"""Recording and replaying against real servers: what was asked, at its pace, here and elsewhere, and nothing twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.stores.recordings import Recording, TimeRange
from mesh.broker.topology import MeshSettings
from mesh.control.replay.plan import ReplayMapping
from mesh.control.replay.runner import Pace, Replay, check_models
from mesh.errors import BrokerError, ModelNotFoundError, TopologyError
from mesh.protocol import headers
from tests.running import MODEL, RunningMesh, present, running_mesh, wait_until

RECORDING = MeshSettings(record_days=1, lanes=2)


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh that records, with a worker."""
    async with running_mesh(tmp_path / "recorded", RECORDING) as mesh:
        await mesh.start_worker()
        yield mesh


async def read(mesh: RunningMesh, **span: Any) -> list[StoredRequest]:
    recording = Recording(mesh.broker)
    return [stored async for page in recording.pages(TimeRange(**span)) for stored in page]


async def wait_recorded(mesh: RunningMesh, count: int) -> None:
    async def is_there() -> bool:
        return len(await read(mesh)) == count

    await wait_until(is_there)


def replay_of(mesh: RunningMesh, target: ReplayMapping | None = None, pace: Pace | None = None, **span: Any) -> Replay:
    return Replay(mesh.broker, TimeRange(**span), target or ReplayMapping("abcdef"), pace or Pace(speed=None))


async def test_a_request_is_recorded_as_it_was_submitted(recorded: RunningMesh) -> None:
    async with mesh_api.connect(recorded.url, tenant="acme", encoding="msgpack") as client:
        job = await client.submit(MODEL, "Once upon", id="one", tier="batch", max_tokens=3, metadata={"a": 1})
        result = await job
    await wait_recorded(recorded, 1)
    (stored,) = await read(recorded)
    assert (stored.sequence, stored.job, stored.encoding) == (job.sequence, "one", "msgpack")
    assert stored.address is not None
    assert (stored.address.model, stored.address.tier, stored.address.tenant) == (MODEL, "batch", "acme")
    assert stored.request is not None
    assert (stored.request.prompt, stored.request.max_tokens) == ("Once upon", 3)
    assert stored.stored_unix_ms == result.created_unix_ms


async def test_who_and_what_is_selected_by_the_server(recorded: RunningMesh) -> None:
    for tenant in ("acme", "other"):
        async with mesh_api.connect(recorded.url, tenant=tenant) as client:
            await client.generate(MODEL, "x", id=f"of-{tenant}", max_tokens=1)
    await wait_recorded(recorded, 2)
    assert [each.job for each in await read(recorded, tenant="acme")] == ["of-acme"]
    assert await read(recorded, model="another") == []
    first, second = await read(recorded)
    assert [e.job for e in await read(recorded, since_unix_ms=second.stored_unix_ms + 60_000)] == []
    assert [e.job for e in await read(recorded, until_unix_ms=first.stored_unix_ms)] == []


async def test_what_a_submitter_says_of_its_place_in_the_stream_is_not_believed(recorded: RunningMesh) -> None:
    forged = headers.block(("Nats-Sequence", 4711), ("Nats-Time-Stamp", "2001-01-01T00:00:00Z"))
    await recorded.connection.request(f"mesh.req.{MODEL}.batch.acme.any", b'{"id": "f", "prompt": "x"}', forged)
    await wait_recorded(recorded, 1)
    (stored,) = await read(recorded)
    assert stored.sequence == 1
    assert abs(stored.stored_unix_ms - time.time() * 1000) < 60_000


async def test_a_mesh_that_records_nothing_says_how_it_would(mesh: RunningMesh) -> None:
    with pytest.raises(TopologyError, match="--record-requests --apply"):
        await replay_of(mesh).outline()


async def test_a_replay_gives_the_same_answers_under_ids_of_its_own(recorded: RunningMesh) -> None:
    async with mesh_api.connect(recorded.url) as client:
        texts = {
            f"j{n}": (await client.generate(MODEL, f"Prompt {n}", id=f"j{n}", max_tokens=8)).text for n in range(20)
        }
        await recorded.connection.request(f"mesh.req.{MODEL}.batch.default.any", b"no request")
        await wait_recorded(recorded, 21)
        replay = replay_of(recorded)
        outline = await replay.outline()
        assert (outline.total, outline.missing, dict(outline.skipped)) == (20, 0, {"unreadable": 1})
        await replay.run(recorded.broker)
        report = replay.report
        assert (report.submitted, dict(report.ended), dict(report.refused)) == (20, {"finished": 20}, {})
        for job, text in texts.items():
            assert (await client.result(f"replay-abcdef-{job}")).text == text
            assert (await client.result(job)).text == text
        # What was replayed was recorded too, and is not replayed with the rest.
        await wait_recorded(recorded, 41)
        again = await replay_of(recorded, ReplayMapping("ffffff")).outline()
        assert (again.total, again.skipped["replays"]) == (20, 20)

        async def is_compared() -> bool:
            await replay.compare()
            return len(report.originals) == 20

        await wait_until(is_compared)
        originals, replays = report.totals_ms()
        assert len(originals) == len(replays) == 20


async def test_a_replay_goes_to_another_mesh_as_another_tenant_for_another_model(
    recorded: RunningMesh, tmp_path: Path
) -> None:
    async with mesh_api.connect(recorded.url, tenant="acme") as client:
        await client.generate(MODEL, "x", id="one", max_tokens=1)
    await wait_recorded(recorded, 1)
    async with running_mesh(tmp_path / "other") as other:
        await other.start_worker()
        lost = replay_of(recorded, ReplayMapping("abcdef", {MODEL: "no-such"}))
        with pytest.raises(ModelNotFoundError, match="no-such"):
            await check_models(other.broker, await lost.outline())
        replay = replay_of(recorded, ReplayMapping("abcdef", {}, MODEL, "trial"))
        await check_models(other.broker, await replay.outline())
        await replay.run(other.broker)
        assert dict(replay.report.ended) == {"finished": 1}
        assert present(await other.result("replay-abcdef-one", "trial")).status == "finished"
        assert (await topology.stream_state(recorded.connection, "MESH_REQUESTS"))["last_seq"] == 1


async def test_the_pace_is_the_recorded_one_over_the_speed_and_the_limit_holds(recorded: RunningMesh) -> None:
    async with mesh_api.connect(recorded.url) as client:
        for n in range(4):
            await client.generate(MODEL, "x", id=f"j{n}", max_tokens=1)
            await asyncio.sleep(0.2)  # the pace that is recorded
    await wait_recorded(recorded, 4)
    first, *_, last = await read(recorded)
    replay = replay_of(recorded, pace=Pace(speed=2.0))
    began_s = time.monotonic()
    await replay.run(recorded.broker)
    assert time.monotonic() - began_s >= (last.stored_unix_ms - first.stored_unix_ms) / 2000
    assert dict(replay.report.ended) == {"finished": 4}
    limited = replay_of(recorded, ReplayMapping("123456"), Pace(speed=None, limit=2))
    assert (await limited.outline()).total == 2
    await limited.run(recorded.broker)
    assert limited.report.submitted == 2


async def test_no_more_jobs_are_open_at_once_than_allowed(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "recorded", RECORDING) as mesh, mesh_api.connect(mesh.url) as client:
        for n in range(6):
            await client.submit(MODEL, "x", id=f"j{n}", max_tokens=1)
        await wait_recorded(mesh, 6)
        replay = replay_of(mesh, pace=Pace(speed=None, at_once=3))
        running = asyncio.create_task(replay.run(mesh.broker))
        await wait_until(lambda: replay.report.open == 3)
        assert await mesh.queued() == 9, "no worker is there, so none ends"
        await mesh.start_worker()
        await running
        assert dict(replay.report.ended) == {"finished": 6}


async def test_a_replay_that_is_cancelled_leaves_its_jobs_to_go_on(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "recorded", RECORDING) as mesh, mesh_api.connect(mesh.url) as client:
        await client.submit(MODEL, "x", id="one", max_tokens=1)
        await wait_recorded(mesh, 1)
        replay = replay_of(mesh)
        running = asyncio.create_task(replay.run(mesh.broker))
        await wait_until(lambda: replay.report.open == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert replay.report.open == 1
        await mesh.start_worker()
        await mesh.wait_queue_empty()
        assert present(await mesh.result("replay-abcdef-one")).status == "finished"


async def test_recording_holds_while_the_recording_stream_is_away(recorded: RunningMesh) -> None:
    """What is recorded is a copy: without its stream nothing is lost but the copy."""
    await recorded.connection.request("$JS.API.STREAM.DELETE.MESH_RECORD")
    async with mesh_api.connect(recorded.url) as client:
        assert (await client.generate(MODEL, "x", max_tokens=1)).status == "finished"
    await topology.apply(recorded.connection, await topology.plan(recorded.broker, RECORDING))
    async with mesh_api.connect(recorded.url) as client:
        await client.generate(MODEL, "x", id="kept", max_tokens=1)
    await wait_recorded(recorded, 1)
    (kept,) = await read(recorded)
    assert (kept.job, kept.sequence) == ("kept", 2), "the place in the queue, not in the recording"


async def test_a_killed_server_costs_no_request_and_what_it_did_not_record_is_counted(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "recorded", RECORDING) as mesh:
        queue = mesh.broker.queue

        async def submit(number: int) -> object:
            body = b'{"id": "j%d", "prompt": "x"}' % number
            while True:
                try:
                    return await queue.submit(f"mesh.req.{MODEL}.batch.t.a", body, f"t.j{number}", "json", "", 1.0)
                except BrokerError:
                    await asyncio.sleep(0.02)

        submitting = [asyncio.create_task(submit(number)) for number in range(200)]
        await asyncio.wait(submitting, return_when=asyncio.FIRST_COMPLETED)
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        await asyncio.gather(*submitting)
        await submit(200)
        assert await mesh.queued() == 201

        async def is_recorded() -> bool:
            found = await read(mesh)
            return bool(found) and found[-1].job == "j200"

        await wait_until(is_recorded)
        outline = await replay_of(mesh).outline()
        recorded = await read(mesh)
        first, last = recorded[0], recorded[-1]
        assert outline.total == len({each.job for each in recorded})
        assert outline.total + outline.missing == last.sequence - first.sequence + 1
        assert last.sequence == 201
