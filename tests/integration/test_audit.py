"""The audit against a real server: what is written about jobs, once each, and without a word of theirs."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mesh as mesh_api
from mesh.audit import reader, writer
from mesh.audit.reader import AuditFilter, AuditLog
from mesh.audit.writer import Auditor, auditing
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.reads import PageSize, StoredMessage, get_batch
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.client.client import Client
from mesh.control.queues import pause
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.hosting.services import services
from mesh.protocol import codec
from mesh.protocol.messages import AuditEntry
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from mesh.worker.worker import WorkerOptions
from tests.running import CRASHING_WORKER, MODEL, RunningMesh, running_mesh, wait_until

NAMES = Names()
SECRET = "xylophone-canary"


async def messages_of(connection: Connection, subject: str = "mesh.audit.>") -> list[StoredMessage]:
    return await get_batch(connection, "MESH_AUDIT", {"seq": 1, "next_by_subj": subject, "batch": 1000})


async def entries_of(connection: Connection, job: str | None = None, subject: str = "mesh.audit.>") -> list[AuditEntry]:
    found = [codec.decode_audit(message.body) for message in await messages_of(connection, subject)]
    return [entry for entry in found if job in (None, entry.job)]


async def wait_entries(connection: Connection, job: str | None, *events: str) -> list[AuditEntry]:
    """The job's entries, once there are these events."""

    async def is_there() -> bool:
        return {entry.event for entry in await entries_of(connection, job)} >= set(events)

    await wait_until(is_there)
    return await entries_of(connection, job)


async def test_a_job_is_told_from_its_acceptance_to_its_end(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit(MODEL, f"{SECRET} prompt", id="told", max_tokens=5, metadata={"note": SECRET})
    result = await job
    accepted, started, ended = await wait_entries(mesh.connection, "told", "accepted", "started", "ended")
    assert [each.event for each in (accepted, started, ended)] == ["accepted", "started", "ended"]
    worker = mesh.workers[0].name
    for entry in (accepted, started, ended):
        assert (entry.tenant, entry.model, entry.tier, entry.by) == ("default", MODEL, "standard", worker)
        assert entry.sequence == job.sequence
    assert (started.attempt, started.index, started.taken_from) == (1, 0, "")
    assert (ended.status, ended.code, ended.attempts) == ("finished", "", 1)
    assert (ended.prompt_tokens, ended.tokens) == (result.usage.prompt_tokens, 5)
    assert (ended.queued_ms, ended.total_ms) == (result.timing.queued_ms, result.timing.total_ms)
    subjects = [message.subject for message in await messages_of(mesh.connection)]
    assert subjects == [f"mesh.audit.default.{event}" for event in ("accepted", "started", "ended")]


async def test_a_refused_body_is_told_with_its_code_and_without_its_text(mesh: RunningMesh) -> None:
    body = b'{"id": "broken", "prompt": ["%s"], "max_tokens": "%s"}' % (SECRET.encode(), SECRET.encode())
    await mesh.connection.request(f"mesh.req.{MODEL}.batch.acme.any", body)
    refused, ended = (await wait_entries(mesh.connection, "broken", "refused", "ended"))[-2:]
    assert (refused.event, refused.tenant, refused.tier, refused.code) == (
        "refused",
        "acme",
        "batch",
        "invalid_request",
    )
    assert (ended.status, ended.code) == ("failed", "invalid_request")
    assert all(SECRET.encode() not in message.body for message in await messages_of(mesh.connection))


async def test_a_takeover_is_told_with_whom_it_was_taken_from(mesh: RunningMesh) -> None:
    slow = SimulatorSettings(model=MODEL, between_tokens_ms=50)
    second = await mesh.start_worker(slow, WorkerOptions(model=MODEL, name="second", grace_s=0.0))
    mesh.workers[0].drain()
    await mesh.tasks[0]
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit(MODEL, "Once", id="moved", max_tokens=40, temperature=0)
        await anext(aiter(job))
        await mesh.start_worker(slow, WorkerOptions(model=MODEL, name="third"))
        second.drain()
        assert (await job).attempts == 2
    entries = await wait_entries(mesh.connection, "moved", "accepted", "started", "returned", "taken_over", "ended")
    returned, taken = (next(each for each in entries if each.event == e) for e in ("returned", "taken_over"))
    assert (returned.by, returned.cause) == ("second", "drain")
    assert (taken.by, taken.taken_from, taken.cause, taken.attempt) == ("third", "second", "handed_back", 2)
    assert taken.index > 0


async def test_a_takeover_from_a_killed_worker_is_told_and_the_acceptance_stays_one(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh, mesh_api.connect(mesh.url) as client:
        child = await mesh.start_child(CRASHING_WORKER)
        job = await client.submit(MODEL, "Once", id="orphan", max_tokens=400, temperature=0)
        await anext(aiter(job))
        await wait_entries(mesh.connection, "orphan", "accepted", "started")
        await mesh.start_worker(options=WorkerOptions(model=MODEL, name="heir"))
        os.kill(child.pid, signal.SIGKILL)
        assert (await job).attempts == 2
        entries = await wait_entries(mesh.connection, "orphan", "ended")
        assert [entry.event for entry in entries] == ["accepted", "started", "taken_over", "ended"]
        taken = entries[2]
        assert (taken.by, taken.taken_from, taken.cause) == ("heir", f"w-{child.pid}", "worker_lost")


async def test_the_front_door_tells_what_it_takes_and_what_it_refuses(mesh: RunningMesh) -> None:
    ask = mesh.connection.request
    await ask(f"mesh.rpc.acme.{MODEL}", b'{"id": "asked", "prompt": "Hello", "max_tokens": 2}')
    entries = await wait_entries(mesh.connection, "asked", "accepted", "started", "ended")
    assert [each.event for each in entries].count("accepted") == 1, "the front door and the worker both saw it"
    for _ in range(50):
        await ask(f"mesh.rpc.acme.{MODEL}", b'{"prompt": 5}')
    await ask("mesh.rpc.acme.no-such-model", b'{"prompt": "Hello"}')

    async def refusals() -> list[AuditEntry]:
        return [each for each in await entries_of(mesh.connection) if each.event == "refused"]

    async def are_told() -> bool:
        return sum(each.count for each in await refusals()) == 51

    await wait_until(are_told)
    assert len(await refusals()) < 51, "a flood of them is few entries"
    found = {(each.tenant, each.model, each.code, each.field) for each in await refusals()}
    assert found == {
        ("acme", MODEL, "invalid_request", "prompt"),
        ("acme", "no-such-model", "model_not_found", "model"),
    }


async def test_a_front_door_tells_of_what_no_worker_has_seen_yet(tmp_path: Path) -> None:
    async with (
        running_mesh(tmp_path / "nats") as bare,
        services(bare.broker, "door", has_frontdoor=True),
    ):
        body = b'{"id": "waits", "prompt": "Hello", "tier": "batch"}'
        asking = asyncio.create_task(bare.connection.request(f"mesh.rpc.acme.{MODEL}", body, timeout_s=30.0))
        (accepted,) = await wait_entries(bare.connection, "waits", "accepted")
        assert (accepted.by, accepted.tenant, accepted.model, accepted.tier) == ("door", "acme", MODEL, "batch")
        assert accepted.sequence == 1
        await bare.connection.request("mesh.ctl.acme.cancel.waits")
        await asking


async def test_who_ends_a_job_that_no_worker_runs_is_told(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as bare, services(bare.broker, "watcher"):
        submit = bare.connection.request
        await submit(f"mesh.req.{MODEL}.batch.acme.any", b'{"id": "late", "prompt": "x", "deadline_unix_ms": 1}')
        await submit(f"mesh.req.{MODEL}.batch.acme.any", b'{"id": "unwanted", "prompt": "x"}')
        await submit("mesh.req.nobody.batch.acme.any", b'{"id": "stray", "prompt": "x"}')
        await submit("mesh.req.nonsense", b"{}")
        await submit("mesh.ctl.acme.cancel.unwanted", b"")
        found = {}
        for job in ("late", "unwanted", "stray"):
            (found[job],) = await wait_entries(bare.connection, job, "ended")
        assert {job: (each.by, each.cause, each.status, each.code) for job, each in found.items()} == {
            "late": ("watcher", "deadline", "expired", "expired"),
            "unwanted": ("watcher", "cancel", "cancelled", "cancelled"),
            "stray": ("watcher", "unserved", "failed", "model_not_found"),
        }

        async def is_refused() -> list[tuple[str, str]]:
            return [(e.tenant, e.field) for e in await entries_of(bare.connection) if e.event == "refused"]

        await wait_until(is_refused)
        assert await is_refused() == [("", "subject")]


def told(number: int) -> AuditEntry:
    return AuditEntry(event="started", unix_ms=1, by="w", tenant="t", job=f"j{number}", sequence=number, attempt=1)


async def test_what_nats_did_not_take_is_written_when_it_is_back_and_once(
    mesh_server: EmbeddedServer, connection: Connection
) -> None:
    async with auditing(Broker(connection, NAMES), "w") as audit:
        audit.tell(told(1))
        await wait_until(lambda: audit.written == 1)
        audit.tell(told(1))  # once more: whoever tells it cannot know
        await mesh_server.stop(kill=True)
        for number in range(2, 300):
            audit.tell(told(number))
        await mesh_server.start()
        await connection.wait_connected(20)
        await wait_until(lambda: audit.written >= 300, 20)
        assert [each.job for each in await entries_of(connection)] == [f"j{number}" for number in range(1, 300)]
        assert audit.dropped == 0


async def test_what_finds_no_room_is_counted_and_the_audit_says_that_it_has_a_gap(
    mesh_server: EmbeddedServer,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 10)
    async with auditing(Broker(connection, NAMES), "w") as audit:
        for number in range(1, 26):
            audit.tell(told(number))
        assert audit.dropped == 15
        await wait_until(lambda: audit.written == 11)
    (gap,) = await entries_of(connection, subject="mesh.audit.-.gap")
    assert (gap.event, gap.count, gap.by) == ("gap", 15, "w")
    assert len([record for record in caplog.records if getattr(record, "event", "") == "audit_dropped"]) == 1


async def test_a_mesh_without_an_audit_writes_none(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(audit=False)) as mesh:
        await mesh.start_worker()
        async with mesh_api.connect(mesh.url) as client:
            await client.generate(MODEL, "Hello", max_tokens=2)
        assert (await topology.stream_state(mesh.connection, "MESH_AUDIT"))["last_seq"] == 0
        async with auditing(mesh.broker, "w") as audit:
            audit.tell(told(1))
            await wait_until(lambda: not audit.is_on)
            audit.tell(told(2))
        assert (await topology.stream_state(mesh.connection, "MESH_AUDIT"))["last_seq"] == 0


async def test_a_worker_without_the_audit_stream_serves_its_jobs_all_the_same(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.connection.request("$JS.API.STREAM.DELETE.MESH_AUDIT")
        await mesh.start_worker()
        async with mesh_api.connect(mesh.url) as client:
            results = await asyncio.gather(*(client.generate(MODEL, "Hello", max_tokens=2) for _ in range(20)))
        assert {each.status for each in results} == {"finished"}


async def test_what_is_left_at_the_end_is_written(mesh_server: EmbeddedServer, connection: Connection) -> None:
    async with connect(ConnectOptions(servers=(mesh_server.url,))) as ending:
        audit = Auditor(Broker(ending, NAMES), "w")
        for number in range(1, 200):
            audit.tell(told(number))
        await audit.close()
        await audit.close()
    assert len(await entries_of(connection)) == 199


async def test_an_operator_is_told_as_nats_knows_the_user(tmp_path: Path) -> None:
    users = "authorization { users: [ {user: alice, password: b} ] }"
    guarded = EmbeddedServer(tmp_path / "g", extra=users)
    await guarded.start()
    try:
        options = ConnectOptions(servers=(guarded.url,), name="context", user="alice", password="b")
        async with connect(options) as connection:
            await topology.apply(
                connection, await topology.plan(Broker(connection, NAMES), MeshSettings(lanes=1), [MODEL])
            )
            await pause.pause(Broker(connection, NAMES), pause.read_target(MODEL), None)
            (paused,) = await entries_of(connection)
        found = (paused.event, paused.model, paused.by, paused.user, paused.host, paused.for_s)
        assert found == ("paused", MODEL, "context", "alice", socket.gethostname(), None)
    finally:
        await guarded.stop(kill=True)


async def test_what_cannot_be_told_is_done_all_the_same(
    mesh_server: EmbeddedServer, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.request("$JS.API.STREAM.DELETE.MESH_AUDIT")
    outcome = await pause.pause(Broker(connection, NAMES), pause.read_target(MODEL), 60)
    assert all(queue.pause_s for queue in outcome.after)
    assert "not in the audit" in caplog.text


async def test_the_newest_are_found_however_far_back_they_are(
    mesh_server: EmbeddedServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "WINDOW", 10)
    monkeypatch.setattr(reader, "PAGE", PageSize(messages=7))
    async with auditing(Broker(connection, NAMES), "w") as audit:
        for number in range(1, 301):
            audit.tell(told(number) if number != 20 else msgspec.structs.replace(told(20), job="rare", tenant="rare"))
        await wait_until(lambda: audit.written == 300)

    async def jobs(limit: int, **selected: Any) -> list[str]:
        found, last = await AuditLog(Broker(connection, NAMES), AuditFilter(**selected)).newest(limit)
        assert last == 300
        return [kept.entry.job for kept in found]

    assert await jobs(3) == ["j298", "j299", "j300"]
    assert len(await jobs(1000)) == 300
    assert await jobs(50, tenant="rare") == await jobs(50, job="rare") == ["rare"]
    assert await jobs(1000, event="ended") == await jobs(5, model="x") == []
    found, _ = await AuditLog(Broker(connection, NAMES), AuditFilter()).newest(300)
    middle = found[150].unix_ms
    later = [kept.entry.job for kept in found if kept.unix_ms >= middle]
    assert await jobs(1000, since_unix_ms=middle) == later
    assert await jobs(1000, until_unix_ms=middle) == [k.entry.job for k in found if k.unix_ms < middle]
    assert await jobs(1000, since_unix_ms=found[-1].unix_ms + 60_000) == []
