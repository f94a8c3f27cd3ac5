"""The jobs in a queue as an operator lists them, and the whole life of one."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as api
from mesh.broker import topology
from mesh.control.jobs.job_detail import JobDetail, JobDetailReader
from mesh.control.jobs.listing import JobLister, JobSelection
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import InvalidRequestError, ResultNotFoundError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import TIERS, Started, Tier
from mesh.worker.worker import WorkerOptions
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

SLOW = SimulatorSettings(model=MODEL, between_tokens_ms=50.0)
LONG: dict[str, Any] = {"max_tokens": 1000, "ignore_eos": True}


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh of two lanes and no worker."""
    async with running_mesh(tmp_path / "nats", topology.MeshSettings(lanes=2)) as mesh:
        yield mesh


async def listed(mesh: RunningMesh, limit: int = 50, **selection: Any) -> list[tuple[str, str]]:
    found = await JobLister(mesh.broker).listing(JobSelection(**selection), limit)
    return [(each.job, each.state) for each in found.jobs]


async def test_jobs_that_wait_are_listed_oldest_first_and_counted_by_tenant(empty: RunningMesh) -> None:
    places: tuple[tuple[str, Tier], ...] = (("a", "standard"), ("b", "batch"), ("b", "standard"))
    for tenant, tier in places:
        async with api.connect(empty.url, tenant=tenant) as client:
            for number in range(2):
                await client.submit(MODEL, f"{number}", id=f"{tenant}-{tier}-{number}", tier=tier)
    found = await JobLister(empty.broker).listing(JobSelection(), 4)
    assert [each.job for each in found.jobs] == ["a-standard-0", "a-standard-1", "b-batch-0", "b-batch-1"]
    assert {each.state for each in found.jobs} == {"queued"}
    assert (found.total, found.delivered, found.waiting, found.truncated) == (6, 0, 6, True)
    assert found.tenants == {"b": 4, "a": 2}
    assert all(each.age_ms >= 0 and 590_000 < each.deadline_ms <= 600_000 for each in found.jobs)
    assert await listed(empty, tenant="b", tier="batch") == [("b-batch-0", "queued"), ("b-batch-1", "queued")]
    assert await listed(empty, model="other") == await listed(empty, state="running") == []
    with pytest.raises(InvalidRequestError):
        await listed(empty, tenant="*")


async def test_jobs_that_run_come_first_with_worker_attempt_and_tokens(empty: RunningMesh) -> None:
    async with api.connect(empty.url) as client:
        for number in range(6):
            await client.submit(MODEL, f"{number}", id=f"j{number}", tier="batch", **LONG)
        await empty.start_worker(SLOW, WorkerOptions(model=MODEL, name="w-one", capacity=2))
        urgent = await client.submit(MODEL, "now", id="silent", tier="interactive", stream=False, **LONG)

        async def two_run() -> bool:
            return len(await listed(empty, state="running")) == 2

        await wait_until(two_run)
        found = await JobLister(empty.broker).listing(JobSelection(), 50)
        assert [each.state for each in found.jobs] == ["running"] * 2 + ["queued"] * 5
        assert {(each.worker, each.attempt) for each in found.jobs[:2]} == {("w-one", 1)}
        assert {(each.worker, each.attempt, each.tokens) for each in found.jobs[2:]} == {("", 0, 0)}
        assert (found.total, found.delivered + found.waiting, found.truncated) == (7, 7, False)

        async def have_tokens() -> bool:
            found = await JobLister(empty.broker).listing(JobSelection(state="running"), 50)
            return [each.worker for each in found.jobs] == ["w-one"] * 2 and all(each.tokens for each in found.jobs)

        await wait_until(have_tokens)
        assert len(await listed(empty, state="queued")) == 5
        assert await urgent.cancel() == "cancelled"


async def test_a_job_that_streams_nothing_is_known_to_run(mesh: RunningMesh) -> None:
    await mesh.start_worker(SLOW, WorkerOptions(model=MODEL, name="w-slow"))
    async with api.connect(mesh.url) as client:
        job = await client.submit(MODEL, "quiet", id="quiet", stream=False, **LONG)

        async def runs() -> bool:
            return await listed(mesh) == [("quiet", "running")]

        await wait_until(runs)
        await job.cancel()


async def test_a_job_whose_worker_is_gone_is_said_to_wait_for_another(empty: RunningMesh) -> None:
    async with api.connect(empty.url) as client:
        job = await client.submit(MODEL, "x", id="orphan", **LONG)
        gone = Started(id="orphan", attempt=1, index=0, worker="w-gone", unix_ms=1, sequence=job.sequence)
        await empty.connection.request(empty.names.events(JobKey("default", "orphan")), codec.encode(gone))
        # As if it had been given to that worker, which holds it until its lease ends.
        await take_each(empty)
        found = await JobLister(empty.broker).listing(JobSelection(), 50)
        assert [(each.state, each.worker, each.reason) for each in found.jobs] == [
            ("retrying", "w-gone", "worker w-gone is gone")
        ]


async def test_a_job_for_a_model_nobody_declared_is_listed_though_others_were_given_out_later(
    empty: RunningMesh,
) -> None:
    await empty.connection.request("mesh.req.typo.standard.default.x", b'{"id": "lost", "prompt": "x"}')
    async with api.connect(empty.url) as client:
        for tier in TIERS:
            for number in range(6):
                await client.submit(MODEL, "x", id=f"{tier}-{number}", tier=tier, session=f"{number}")
    await take_each(empty)
    lanes = await topology.consumer_states(empty.connection, empty.names.requests_stream)
    assert all(state["num_ack_pending"] for state in lanes.values())
    assert ("lost", "queued") in await listed(empty)


async def test_ten_thousand_queued_jobs_cost_what_is_shown_of_them(empty: RunningMesh) -> None:
    for number in range(10_000):
        subject = empty.names.request(MODEL, "batch", f"t{number % 3}", f"a{number}")
        empty.connection.publish(subject, b'{"prompt": "Hi"}')
        if number % 500 == 499:
            await empty.connection.request("$JS.API.INFO")

    async def all_there() -> bool:
        return await empty.queued() == 10_000

    await wait_until(all_there)
    began = time.monotonic()
    found = await JobLister(empty.broker).listing(JobSelection(tenant="t1"), 20)
    assert time.monotonic() - began < 2.0
    assert (len(found.jobs), found.total, found.waiting, found.truncated) == (20, 3333, 3333, True)
    assert {each.tenant for each in found.jobs} == {"t1"}


async def take_each(mesh: RunningMesh) -> None:
    """The oldest job of each lane that has one, as `take`."""
    for name, state in (await topology.consumer_states(mesh.connection, mesh.names.requests_stream)).items():
        if state["num_pending"]:
            await take(mesh, name)


async def take(mesh: RunningMesh, consumer: str) -> None:
    """One job of a lane, as a worker takes it that then says nothing."""
    heard: list[bytes] = []
    inbox = mesh.connection.new_inbox()
    subscription = mesh.connection.subscribe(inbox, lambda subject, reply, payload, header: heard.append(subject))
    body = b'{"batch": 1, "no_wait": true, "group": "w"}'
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{mesh.names.requests_stream}.{consumer}"
    mesh.connection.publish(subject, body, reply=inbox)
    await wait_until(lambda: heard)
    subscription.close()


async def told(mesh: RunningMesh, job: str, tenant: str = "default", **more: bool) -> JobDetail:
    return await JobDetailReader(mesh.broker).tell(JobKey(tenant, job), **more)


async def test_a_finished_job_is_told_with_attempts_moments_and_result(mesh: RunningMesh) -> None:
    async with api.connect(mesh.url) as client:
        await client.generate(MODEL, "Hello", id="done", max_tokens=4, ignore_eos=True, stream=True)
    await mesh.wait_queue_empty()
    life = await told(mesh, "done")
    assert life is not None
    assert life.result is not None
    assert (life.status, life.model, life.result.status, life.job_state, life.waits) == (
        "finished",
        MODEL,
        "finished",
        None,
        [],
    )
    (attempt,) = life.attempts
    assert (attempt.number, attempt.worker, attempt.tokens, attempt.outcome) == (
        1,
        mesh.workers[0].name,
        4,
        "finished",
    )
    kinds = [each.kind for each in life.moments]
    assert (kinds[:2], kinds[-1]) == (["stored", "started"], "result")
    assert [each.at_ms for each in life.moments] == sorted(each.at_ms for each in life.moments)
    assert life.moments[0].at_ms == 0


async def test_a_job_that_waits_says_why_and_its_prompt_only_if_asked(empty: RunningMesh) -> None:
    async with api.connect(empty.url, tenant="acme") as client:
        for number in range(5):
            await client.submit(MODEL, "a secret", id=f"j{number}", session=f"{number}", max_tokens=7)
    life = await told(empty, "j3", "acme")
    assert (life.status, life.ahead, life.tier) == ("queued", 3, "standard")
    assert [each.code for each in life.waits] == ["no_worker", "position", "deadline"]
    assert life.request is not None
    assert life.request.fields == {"max_tokens": 7, "session": "3"}
    assert (life.prompt, life.request.input) == (None, "prompt of 8 characters")
    assert (await told(empty, "j3", "acme", has_prompt=True)).prompt == "a secret"
    first, last = await told(empty, "j0", "acme"), await told(empty, "j4", "acme")
    assert (first.ahead, last.ahead) == (0, 4)


async def test_a_job_behind_a_full_worker_says_so(empty: RunningMesh) -> None:
    await empty.start_worker(SLOW, WorkerOptions(model=MODEL, capacity=2))
    async with api.connect(empty.url) as client:
        for number in range(8):
            await client.submit(MODEL, f"{number}", id=f"j{number}", **LONG)

        async def is_full() -> bool:
            life = await told(empty, "j7")
            return "full" in [each.code for each in life.waits]

        await wait_until(is_full)
        running = (await listed(empty, state="running"))[0][0]
        life = await told(empty, running)
        assert (life.status, life.waits, life.attempts[0].outcome) == ("running", [], "runs")


async def test_a_job_that_was_given_up_is_told_with_its_letter_and_how_each_attempt_failed(mesh: RunningMesh) -> None:
    async with api.connect(mesh.url) as client:
        fails = {"simulate": {"fail": True}}
        await client.generate(MODEL, "x", id="bad", metadata=fails, max_tokens=3, stream=True)
    await mesh.wait_queue_empty()
    life = await told(mesh, "bad")
    assert life.dead_letter is not None
    assert (life.status, life.dead_letter.code, life.tier) == ("failed", "attempts_exhausted", "standard")
    assert [each.outcome.split(":")[0] for each in life.attempts[:2]] == ["failed", "failed"]
    assert life.request is not None
    assert life.request.fields["max_tokens"] == 3
    assert {"note", "buried", "result"} <= {each.kind for each in life.moments}


async def test_an_unknown_job_is_not_found_and_the_tenant_that_has_it_is_named(mesh: RunningMesh) -> None:
    async with api.connect(mesh.url, tenant="acme") as client:
        await client.generate(MODEL, "x", id="theirs", max_tokens=2)
    with pytest.raises(ResultNotFoundError, match="acme has a job of that id"):
        await told(mesh, "theirs")
    with pytest.raises(ResultNotFoundError, match="is not known"):
        await told(mesh, "nobody")


async def test_a_job_of_which_the_result_alone_is_left_is_told_from_that(mesh: RunningMesh) -> None:
    async with api.connect(mesh.url) as client:
        await client.generate(MODEL, "x", id="old", max_tokens=2, stream=True)
    await mesh.wait_queue_empty()
    await mesh.connection.request("$JS.API.STREAM.PURGE.MESH_EVENTS")
    life = await told(mesh, "old")
    assert (life.status, life.attempts, life.request) == ("finished", [], None)
    assert [each.kind for each in life.moments] == ["stored", "result"]


async def test_one_of_ten_thousand_queued_jobs_is_found_and_placed_quickly(empty: RunningMesh) -> None:
    for number in range(10_000):
        subject = empty.names.request(MODEL, "batch", "t", f"a{number}")
        empty.connection.publish(subject, b'{"id": "j%d", "prompt": "Hi"}' % number)
        if number % 500 == 499:
            await empty.connection.request("$JS.API.INFO")

    async def all_there() -> bool:
        return await empty.queued() == 10_000

    await wait_until(all_there)
    began = time.monotonic()
    life = await told(empty, "j9000", "t")
    assert time.monotonic() - began < 3.0
    assert life.ahead == 9000
