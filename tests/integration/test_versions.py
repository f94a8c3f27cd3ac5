"""Speakers of other versions beside today's: a later minor is understood, another major is refused.

The later speaker is written by hand on plain nats-py: fields, events, statuses, verdicts and states that today's
program does not know, and messages of a version 2.0 that it must not act on.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

import mesh as library
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import connect as connect_broker
from mesh.broker.transport.options import ConnectOptions
from mesh.cli.option_values import Nats, TopologyOptions
from mesh.cli.setup import init_action
from mesh.client.client import Client
from mesh.client.internal import ClientCore, core_of
from mesh.control.doctor import checks
from mesh.control.doctor.examine import examine_all
from mesh.control.jobs.job_detail import JobDetailReader
from mesh.control.jobs.listing import JobLister, JobSelection
from mesh.control.jobs.tail import EventTail
from mesh.control.status.checks import findings
from mesh.control.status.snapshot import snapshot
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import JobFailedError, TopologyError, VersionError
from mesh.hosting.services import services
from mesh.job_key import JobKey
from mesh.protocol.messages import Delta, LaterEvent, Result, Started
from mesh.protocol.subjects import Names
from mesh.protocol.version import PROTOCOL
from mesh.server import EmbeddedServer
from tests.running import MODEL, RunningMesh, present, running_mesh, wait_until
from tests.tenancy import running_tenancy

pytestmark = pytest.mark.timeout(60)
PROMPT: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
REQUESTS = f"mesh.req.{MODEL}.standard.default.any"
RPC = f"mesh.rpc.default.{MODEL}"
UPGRADE = "pip install -U inference-mesh"


class LaterSpeaker:
    """Writes what a worker of protocol 1.1 writes, with stock nats-py."""

    def __init__(self, client: nats.NATS) -> None:
        self.client = client
        self._last: dict[str, int] = {}

    async def publish(self, job: str, event: dict[str, Any]) -> None:
        """One event of a job, fenced by the one before."""
        subject = f"mesh.out.default.{job}"
        expected = {"Nats-Expected-Last-Subject-Sequence": str(self._last.get(job, 0)), "Mesh-Zone": "a"}
        body = json.dumps({"id": job, "attempt": 1, "index": 0, "zone": "a"} | event).encode()
        ack = json.loads((await self.client.request(subject, body, headers=expected, timeout=5)).data)
        assert "error" not in ack, ack
        self._last[job] = ack["seq"]

    async def begin(self, job: str, sequence: int = 0, worker: str = "w-later") -> None:
        """An event before `started` that nobody knew in 1.0, then that."""
        await self.publish(job, {"type": "placed", "attempt": 0})
        await self.publish(
            job, {"type": "started", "worker": worker, "unix_ms": now_ms(), "sequence": sequence, "device": "gpu-7"}
        )

    async def end(self, job: str, status: str, text: str, **fields: object) -> dict[str, Any]:
        """The Result, stored and announced."""
        body: dict[str, Any] = {
            "type": "result",
            "id": job,
            "tenant": "default",
            "model": MODEL,
            "status": status,
            "text": text,
        }
        body |= {"attempts": 1, "worker": "w-later", "usage": {"completion_tokens": 2, "thoughts": 3}, "cost": 7}
        body |= fields
        create = {"Nats-Expected-Last-Subject-Sequence": "0"}
        key = f"$KV.mesh_results.default.{job}"
        ack = await self.client.request(key, json.dumps(body).encode(), headers=create, timeout=5)
        assert "error" not in json.loads(ack.data)
        await self.publish(job, body)
        return body

    async def submit(self, job: str, version: str = "1.1", **fields: object) -> int:
        """A request, and its place in the queue."""
        body = json.dumps({"id": job, **PROMPT, **fields}).encode()
        headers = {"Nats-Msg-Id": f"default.{job}", "Mesh-Protocol": version}
        ack = json.loads((await self.client.request(REQUESTS, body, headers=headers, timeout=5)).data)
        assert "error" not in ack, ack
        return int(ack["seq"])

    async def beat(self, worker: str, **fields: object) -> None:
        """The presence of a worker."""
        body: dict[str, Any] = {
            "worker": worker,
            "model": MODEL,
            "state": "ready",
            "engine": "simulator",
            "engine_version": "1",
        }
        body |= {"version": "9.9.0", "host": "h", "pid": 1, "capacity": 4, "running": 0, "protocol": "1.1"}
        body |= {"beat_unix_ms": now_ms(), "zone": "a"} | fields
        await self.client.request(f"$KV.mesh_workers.{worker}", json.dumps(body).encode(), timeout=5)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh without a worker."""
    async with running_mesh(tmp_path / "nats") as running:
        yield running


@contextlib.asynccontextmanager
async def later_on(url: str) -> AsyncIterator[LaterSpeaker]:
    client = await nats.connect(url)
    try:
        yield LaterSpeaker(client)
    finally:
        await client.close()


@pytest.fixture
async def later(empty: RunningMesh) -> AsyncIterator[LaterSpeaker]:
    async with later_on(empty.url) as speaker:
        yield speaker


async def declare(mesh: RunningMesh, protocol: str | None) -> None:
    """Write the version into the mesh's metadata, as `mesh init` of that version does. None: leave it out."""
    name = mesh.names.requests_stream
    _, payload = await mesh.connection.request(f"$JS.API.STREAM.INFO.{name}")
    config = json.loads(payload)["config"]
    config["metadata"].pop("mesh.protocol")
    if protocol is not None:
        config["metadata"]["mesh.protocol"] = protocol
    _, payload = await mesh.connection.request(f"$JS.API.STREAM.UPDATE.{name}", json.dumps(config).encode())
    assert "error" not in json.loads(payload), payload


# The mesh's own version.


@pytest.mark.parametrize(("protocol", "spoken"), [("1", "1.0"), ("1.0", "1.0"), ("1.7", "1.7")])
async def test_a_mesh_of_the_same_major_is_used(empty: RunningMesh, protocol: str, spoken: str) -> None:
    await declare(empty, protocol)
    await empty.start_worker()
    async with library.connect(empty.url) as client:
        assert client.protocol == spoken
        assert (await client.generate(MODEL, **PROMPT)).status == "finished"


@pytest.mark.parametrize(("protocol", "helps"), [("2.0", UPGRADE), ("0.9", "mesh init --namespace")])
async def test_a_mesh_of_another_major_is_refused_by_client_worker_and_door(
    empty: RunningMesh, protocol: str, helps: str
) -> None:
    await declare(empty, protocol)
    with pytest.raises(VersionError, match=f"protocol {protocol}, and this program 1.0") as refused:
        async with library.connect(empty.url):
            pass
    assert helps in str(refused.value)
    with pytest.raises(VersionError, match=protocol):
        await empty.start_worker()
    with pytest.raises(VersionError, match=protocol):
        await topology.read_settings(empty.broker)


@pytest.mark.parametrize("protocol", [None, "", "one", "1.0.0", "-1", "1.x"])
async def test_a_mesh_without_a_readable_version_is_no_mesh(empty: RunningMesh, protocol: str | None) -> None:
    await declare(empty, protocol)
    with pytest.raises(TopologyError, match=r"mesh\.protocol"):
        async with library.connect(empty.url):
            pass


async def test_init_raises_the_minor_writes_what_is_garbled_and_lowers_nothing(empty: RunningMesh) -> None:
    async def declared() -> str:
        return str((await topology.read_settings(empty.broker)).protocol)

    settings = topology.MeshSettings(protocol=(await topology.read_settings(empty.broker)).protocol)
    for before, after in (("garbled", "1.0"), ("1.3", "1.3"), ("1", "1.0")):
        await declare(empty, before)
        changes = await topology.plan(empty.broker, settings)
        assert {each.verb for each in changes} == ({"keep", "change"} if before == "garbled" else {"keep"})
        await topology.apply(empty.connection, changes)
        assert await declared() == after
    await declare(empty, "1.0")
    raised = topology.MeshSettings(protocol=settings.protocol._replace(minor=2))
    await topology.apply(empty.connection, await topology.plan(empty.broker, raised))
    assert await declared() == "1.2"


async def test_a_later_programs_init_raises_the_minor_of_the_mesh(
    empty: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init_action, "PROTOCOL", PROTOCOL._replace(minor=2))
    where = Nats((empty.url,), None, None, None, None, None, None, None, False, "mesh")
    shape = TopologyOptions(None, None, None, None, None, None, None)
    for is_applied, declared in ((False, "1.0"), (True, "1.2")):
        await init_action.run(where, (), shape, is_applied, as_json=True)
        assert str((await topology.read_settings(empty.broker)).protocol) == declared


async def test_a_tenants_client_is_told_by_an_answer(tmp_path: Path) -> None:
    """Its account has no JetStream: the version stands in what the control service says."""
    async with running_tenancy(tmp_path, ["acme"]) as tenancy:
        await tenancy.start_worker()
        await tenancy.reload()
        async with library.connect(tenant="acme", options=tenancy.tenant("acme")) as client:
            assert client.protocol is None
            assert (await client.generate(MODEL, **PROMPT)).status == "finished"
            assert client.protocol == "1.0"


@contextlib.asynccontextmanager
async def confined(tmp_path: Path, kind: str) -> AsyncIterator[tuple[Any, ...]]:
    """A client without JetStream, as in a tenant's account, before a control service of protocol 2.0.

    With it: what it publishes to the queue, and the headers with which it asks.
    """
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    try:
        async with later_on(server.url) as later:
            submitted, asked = await later.client.subscribe("other.req.>"), []

            async def answer(message: Msg) -> None:
                asked.append(dict(message.headers or {}))
                if kind == "answer":
                    said = {"model": MODEL, "max_model_len": 0, "id": "j", "status": "running", "protocol": "2.0"}
                    await message.respond(json.dumps(said).encode())
                    await message.respond(b"")
                    return
                headers = {"Nats-Service-Error-Code": "400", "Nats-Service-Error": "speak 2.0", "Mesh-Error-Code": "x"}
                headers["Mesh-Error-Field"] = "Mesh-Protocol"
                await later.client.publish(message.reply, b"", headers=headers)

            await later.client.subscribe("other.ctl.default.*.*", cb=answer)
            await later.client.flush()
            async with connect_broker(ConnectOptions(servers=(server.url,))) as connection:
                broker = Broker(connection, Names("other"))
                core = ClientCore(broker, "default", "json", server.url, is_confined=True)
                async with contextlib.AsyncExitStack() as resources:
                    resources.push_async_callback(core.close)
                    yield Client(core, resources), submitted, asked
                await later.client.flush()
    finally:
        await server.stop()


@pytest.mark.parametrize("kind", ["answer", "refusal"])
async def test_a_tenants_client_refuses_a_mesh_of_another_major_before_it_submits(tmp_path: Path, kind: str) -> None:
    async with confined(tmp_path, kind) as (client, submitted, asked):
        with pytest.raises(VersionError, match=r"2\.0"):
            await client.submit(MODEL, **PROMPT)
    assert asked == [{"Mesh-Protocol": "1.0"}]
    assert submitted.pending_msgs == 0


@pytest.mark.parametrize("kind", ["answer", "refusal"])
async def test_a_tenants_handle_of_a_job_ends_with_a_mesh_of_another_major(tmp_path: Path, kind: str) -> None:
    """It says so at once, rather than wait for a Result that it could not read."""
    async with confined(tmp_path, kind) as (client, _, asked):
        with pytest.raises(VersionError, match=r"2\.0"):
            await client.job("j", timeout=30)
    assert asked[0] == {"Mesh-Protocol": "1.0"}


# Requests.


async def test_every_request_says_which_version_it_speaks(empty: RunningMesh, later: LaterSpeaker) -> None:
    heard = await later.client.subscribe("mesh.req.>")
    await later.client.flush()
    async with library.connect(empty.url) as client:
        await client.submit(MODEL, **PROMPT)
        message = await heard.next_msg(timeout=5)
    assert message.headers["Mesh-Protocol"] == "1.0"


@pytest.mark.parametrize("version", ["1.0", "1", "1.9"])
async def test_a_request_of_the_same_major_runs(empty: RunningMesh, later: LaterSpeaker, version: str) -> None:
    await empty.start_worker()
    await later.submit("same", version, thoughts={"most": 5})
    await wait_until(lambda: has_result(empty, "same"))
    assert present(await empty.result("same")).status == "finished"


@pytest.mark.parametrize(
    ("version", "code"), [("2.0", "unsupported"), ("0.1", "unsupported"), ("x", "invalid_request")]
)
async def test_a_request_of_another_major_is_refused_and_never_run(
    empty: RunningMesh, later: LaterSpeaker, version: str, code: str
) -> None:
    worker = await empty.start_worker()
    await later.submit("other", version, prompt={"in_2_0": "a prompt is an object"})
    await wait_until(lambda: has_result(empty, "other"))
    result = await empty.result("other")
    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.code, result.attempts) == ("failed", code, 0)
    assert result.error.message.startswith("Mesh-Protocol: ")
    assert not result.error.retryable
    await empty.wait_queue_empty()
    assert [type(event) for event in await empty.history("other")] == [Result]
    assert worker.statistics().tokens == 0
    headers = {"Mesh-Protocol": version}
    asked = await later.client.request(RPC, json.dumps(PROMPT).encode(), headers=headers, timeout=5)
    steered = await later.client.request("mesh.ctl.default.status.other", b"", headers=headers, timeout=5)
    for refused in (asked, steered):
        assert refused.headers["Nats-Service-Error-Code"] == "400"
        assert refused.headers["Mesh-Error-Code"] == code
        assert refused.headers["Mesh-Error-Field"] == "Mesh-Protocol"
    assert worker.statistics().tokens == 0


async def has_result(mesh: RunningMesh, job: str) -> bool:
    return await mesh.result(job) is not None


# A worker that takes over.


@pytest.mark.parametrize("last", ["delta", "progress"])
async def test_a_worker_goes_on_after_a_journal_with_events_it_does_not_know(tmp_path: Path, last: str) -> None:
    async with running_mesh(tmp_path / "nats") as mesh, later_on(mesh.url) as later:
        await mesh.start_worker(SimulatorSettings(model=MODEL))
        async with library.connect(mesh.url) as client:
            whole = await client.generate(MODEL, **PROMPT, id="whole", stream=True)
        first = next(event for event in await mesh.history("whole") if isinstance(event, Delta))
        await mesh.close()
        mesh.tasks.clear()
        sequence = await later.submit("taken")
        await later.begin("taken", sequence)
        await later.publish("taken", {"type": "delta", "text": first.text, "token_ids": first.token_ids, "logprob": 1})
        if last == "progress":
            await later.publish("taken", {"type": "progress", "index": len(first.token_ids), "percent": 9})
        before = len(await mesh.journal_entries("taken"))
        await mesh.start_worker(SimulatorSettings(model=MODEL))
        await wait_until(lambda: has_result(mesh, "taken"), 20)
        await mesh.wait_queue_empty()
        result = await mesh.result("taken")
        assert result is not None
        assert whole is not None
        assert (result.status, result.text, result.attempts) == ("finished", whole.text, 2)
        entries = await mesh.journal_entries("taken")
        started = entries[before].event
        assert isinstance(started, Started)
        assert (started.attempt, started.index) == (2, len(first.token_ids))
        assert entries[-1].event == result
        assert [each.later.type for each in entries if each.later is not None] == ["placed", "progress"][: before - 2]


async def test_a_verdict_that_is_not_known_counts_as_a_failed_attempt(empty: RunningMesh, later: LaterSpeaker) -> None:
    """Attempts stay bounded whatever a later worker notes of them."""
    sequence = await later.submit("noted")
    for attempt in (1, 2, 3):
        await later.publish(
            "noted",
            {"type": "started", "attempt": attempt, "worker": "w-later", "unix_ms": now_ms(), "sequence": sequence},
        )
        note = {"type": "note", "id": "noted", "attempt": attempt, "verdict": "preempted", "reason": "made room"}
        await later.client.request("mesh.sys.notes.default.noted", json.dumps(note | {"zone": "a"}).encode())
    detail = await JobDetailReader(empty.broker).tell(JobKey("default", "noted"))
    assert [each.outcome for each in detail.attempts] == ["preempted: made room"] * 3
    await empty.start_worker()
    await wait_until(lambda: has_result(empty, "noted"), 20)
    result = await empty.result("noted")
    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.code, result.attempts) == ("failed", "attempts_exhausted", 4)


async def test_a_result_of_a_status_that_is_not_known_is_left_as_it_is(empty: RunningMesh, later: LaterSpeaker) -> None:
    """The job ended: a worker that gets its request again announces nothing else, and removes it."""
    await later.submit("ended")
    await later.begin("ended")
    stored = await later.end("ended", "preempted", "One")
    worker = await empty.start_worker()
    await empty.wait_queue_empty()
    assert present(await empty.result("ended")).status == stored["status"] == "preempted"
    assert worker.statistics().tokens == 0
    assert isinstance((await empty.history("ended"))[-1], Result)


# Readers.


async def write_all(later: LaterSpeaker, job: str, status: str = "preempted") -> None:
    """A job from its first event to its Result."""
    await later.begin(job)
    await later.publish(job, {"type": "delta", "text": "One", "token_ids": [1]})
    await later.publish(job, {"type": "progress", "index": 1, "percent": 50})
    await later.publish(job, {"type": "delta", "index": 1, "text": " two", "token_ids": [2], "finish_reason": "room"})
    error = {"code": "preempted", "message": "made room", "retryable": True, "until_ms": 5}
    await later.end(job, status, "One two", finish_reason="room", error=error)


@pytest.mark.parametrize("when", ["live", "from the journal"])
async def test_a_reader_sees_the_output_and_a_status_it_does_not_know(
    empty: RunningMesh, later: LaterSpeaker, when: str
) -> None:
    async with library.connect(empty.url) as client:
        job = client.job("read") if when == "live" else None
        await later.submit("read")
        await write_all(later, "read")
        job = job or client.job("read")
        async with asyncio.timeout(20):
            shown = [delta.text async for delta in job]
            result = await job
        assert "".join(shown) == "One two"
        assert (result.status, result.finish_reason, result.text) == ("preempted", "room", "One two")
        with pytest.raises(JobFailedError, match="job read preempted: made room") as failed:
            result.raise_for_status()
        assert (failed.value.code, failed.value.result) == ("preempted", result)
        assert str((await client.result("read")).status) == "preempted"


async def test_whose_a_journal_is_is_told_by_its_first_event_that_is_known(
    empty: RunningMesh, later: LaterSpeaker
) -> None:
    """A second request of an id is told apart also where a later worker began the first."""
    journal = empty.broker.journal
    sequence = await later.submit("whose", seed=1)
    await later.begin("whose", sequence)
    first = await journal.begun(JobKey("default", "whose"))
    assert isinstance(first, Started)
    assert first.sequence == sequence
    await later.publish("only", {"type": "placed"})
    for job in ("only", "nobody"):
        assert await journal.begun(JobKey("default", job)) is None


async def test_a_state_that_status_does_not_know_is_no_unknown_job(empty: RunningMesh, later: LaterSpeaker) -> None:
    """A later service says `scheduled`: the handle goes on waiting for its Result."""

    async def answer(message: Msg) -> None:
        await message.respond(json.dumps({"id": "s", "status": "scheduled", "protocol": "1.1", "at": 5}).encode())

    await later.client.subscribe("mesh.ctl.default.status.*", cb=answer)
    await later.client.flush()
    async with library.connect(empty.url) as client:
        assert await core_of(client).lookup.ask("s") is None
        assert client.protocol == "1.1"
        await write_all(later, "s", "preempted")
        assert str(present(await core_of(client).lookup.ask("s")).status) == "preempted"


async def test_the_front_door_passes_on_what_it_does_not_know(empty: RunningMesh, later: LaterSpeaker) -> None:
    async with services(empty.broker, "door", has_frontdoor=True):
        await empty.connection.request("$JS.API.INFO")  # the server knows its subscriptions now
        heard = await later.client.subscribe("reply.here")
        body = json.dumps({"id": "door", "stream": True, **PROMPT}).encode()
        await later.client.publish(RPC, body, reply="reply.here", headers={"Mesh-Protocol": "1.1"})
        await wait_until(lambda: is_queued(empty))
        await write_all(later, "door")
        messages: list[Any] = []
        while not messages or messages[-1].data:
            messages.append(await heard.next_msg(timeout=15))
        events = [json.loads(each.data) for each in messages[:-1]]
        types = ["placed", "started", "delta", "progress", "delta", "result"]
        assert [event["type"] for event in events] == types
        assert events[3]["percent"] == 50
        assert events[-1]["status"] == "preempted"
        status = json.loads((await later.client.request("mesh.ctl.default.status.door", b"", timeout=5)).data)
        assert (status["status"], status["protocol"]) == ("preempted", "1.0")
        inbox = await later.client.subscribe("replayed.here")
        await later.client.publish("mesh.ctl.default.replay.door", b'{"index": 1}', reply="replayed.here")
        replayed: list[Any] = []
        while not replayed or replayed[-1].data:
            replayed.append(await inbox.next_msg(timeout=5))
        assert [json.loads(each.data)["type"] for each in replayed[:-1]] == ["progress", "delta", "result"]


async def is_queued(mesh: RunningMesh) -> bool:
    return await mesh.queued() == 1


async def test_tail_shows_events_that_it_does_not_know_in_their_place(empty: RunningMesh, later: LaterSpeaker) -> None:
    tail = EventTail(empty.broker, "default", "tailed")
    try:
        await later.submit("tailed")
        await write_all(later, "tailed")
        async with asyncio.timeout(20):
            told = [each async for each in tail.follow_job(JobKey("default", "tailed")) if each is not None]
    finally:
        tail.close()
    assert [type(each.event) for each in told] == [LaterEvent, Started, Delta, LaterEvent, Delta, Result]
    assert isinstance(told[3].event, LaterEvent)
    assert told[3].event.type == "progress"
    assert json.loads(told[3].body)["percent"] == 50


async def test_a_job_is_told_and_listed_whatever_its_last_event_is(empty: RunningMesh, later: LaterSpeaker) -> None:
    sequence = await later.submit("told")
    await later.begin("told", sequence)
    await later.publish("told", {"type": "progress", "index": 3, "percent": 50})
    await later.beat("w-later")
    detail = await JobDetailReader(empty.broker).tell(JobKey("default", "told"))
    assert detail.job_state is not None
    assert (detail.status, detail.job_state.attempt, detail.job_state.worker) == ("running", 1, "w-later")
    assert [each.kind for each in detail.moments] == ["stored", "later", "started", "later"]
    (seen,) = (await JobLister(empty.broker).listing(JobSelection(), 9)).jobs
    assert (seen.job, seen.state) == ("told", "queued")  # no worker of ours was given it
    await later.end("told", "preempted", "One")
    detail = await JobDetailReader(empty.broker).tell(JobKey("default", "told"))
    assert detail is not None
    assert detail.result is not None
    assert (detail.status, detail.result.status) == ("preempted", "preempted")


# Who speaks what.


async def test_status_and_doctor_list_a_mixed_mesh(empty: RunningMesh, later: LaterSpeaker) -> None:
    await empty.start_worker()
    await later.beat("w-later", state="resting")
    async with services(empty.broker, "door-1"):
        shown = await snapshot(empty.broker)
        assert {each.presence.worker: each.presence.protocol for each in shown.workers}["w-later"] == "1.1"
        assert [each.state for each in (seen.presence for seen in shown.workers) if each.worker == "w-later"] == [
            "resting"
        ]
        said = {each.code: each.text for each in findings(shown, empty.names)}
        assert "1.1 (mesh 9.9.0): worker w-later" in said["mixed_protocol"]
        facts = await examine_all(empty.options(), empty.names, None, is_quick=True)
    assert [(each.name, each.protocol) for each in present(facts.mesh).doors] == [("door-1", "1.0")]
    (mixed,) = [each for each in checks.diagnose(facts) if each.code == "mixed_protocol"]
    assert f"1.0 (mesh {library.__version__}): worker" in mixed.text
    assert "door door-1; 1.1 (mesh 9.9.0): worker w-later" in mixed.text
    assert mixed.level == "warning"


async def test_a_door_of_another_major_is_found_by_the_doctor(empty: RunningMesh, later: LaterSpeaker) -> None:
    async def answer(message: Msg) -> None:
        said = {"name": "mesh", "id": "door-2", "version": "2.0.0", "metadata": {"protocol": "2.0"}, "type": "x"}
        await message.respond(json.dumps(said).encode())

    await later.client.subscribe("$SRV.PING.mesh", cb=answer)
    await later.client.flush()
    facts = await examine_all(empty.options(), empty.names, None, is_quick=True)
    (divided,) = [each for each in checks.diagnose(facts) if each.code == "divided_protocol"]
    assert "2.0 (mesh 2.0.0): door door-2" in divided.text
    await declare(empty, "2.0")
    facts = await examine_all(empty.options(), empty.names, None, is_quick=True)
    (other,) = [each for each in checks.diagnose(facts) if each.code == "other_protocol"]
    assert (other.level, other.fix) == ("error", f"upgrade this program: {UPGRADE}")


async def test_a_service_and_a_worker_say_which_version_they_speak(empty: RunningMesh, later: LaterSpeaker) -> None:
    worker = await empty.start_worker()
    info = json.loads((await later.client.request(f"$SRV.INFO.mesh.{worker.name}", b"", timeout=5)).data)
    assert info["metadata"]["protocol"] == "1.0"
    await wait_until(empty.broker.workers.all)
    (presence,) = await empty.broker.workers.all()
    assert presence.protocol == "1.0"
