"""The doctor before servers that are really wrong: nothing there, old, drifted, without JetStream, suspended."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as library
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.control.doctor import checks
from mesh.control.doctor import local as local_machine
from mesh.control.doctor.examine import address_of, examine_all
from mesh.control.doctor.facts import Facts, PortFacts
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer, embedded_server, free_port
from mesh.verify.soak.servers import Servers
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

NAMES = Names()
CHILD = Path(__file__).parents[1] / "chaos" / "crashing_worker.py"


@pytest.fixture(autouse=True)
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on this machine's well-known ports is no matter of these tests."""
    monkeypatch.setattr(local_machine, "PORTS", ())


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path / "nats") as running:
        yield running


async def examined(url: str, monitor: str | None = None, names: Names = NAMES, **login: Any) -> Facts:
    options = ConnectOptions(servers=(url,), connect_timeout_s=2.0, **login)
    return await examine_all(options, names, monitor, is_quick=True)


async def codes(url: str, monitor: str | None = None, names: Names = NAMES, **login: Any) -> dict[str, str]:
    """What is said, by its code, of everything but this machine."""
    found = checks.diagnose(await examined(url, monitor, names, **login))
    local = {"no_engine", "engine_version", "torch_cpu", "few_files"}
    return {each.code: each.level for each in found if each.code not in local}


async def api(connection: Connection, call: str, body: dict[str, Any]) -> dict[str, Any]:
    _, payload = await connection.request(f"$JS.API.{call}", json.dumps(body).encode())
    answer: dict[str, Any] = json.loads(payload)
    assert "error" not in answer, answer
    return answer


async def edit_stream(connection: Connection, name: str, **changes: Any) -> None:
    config = (await api(connection, f"STREAM.INFO.{name}", {}))["config"]
    await api(connection, f"STREAM.UPDATE.{name}", {**config, **changes})


async def test_a_mesh_as_it_should_be_gets_a_note_of_what_cannot_be_seen(mesh: RunningMesh) -> None:
    await mesh.start_worker()
    assert await codes(mesh.url) == {"sync_unseen": "note"}
    facts = await examined(mesh.url)
    assert facts.clock is not None
    assert abs(facts.clock.offset_ms) < 500
    assert len(facts.clock.rtt_ms) == 8
    assert facts.mesh is not None
    assert facts.mesh.silent == facts.mesh.leaderless == []


async def test_without_nats_this_machine_is_looked_at_all_the_same() -> None:
    facts = await examined(f"nats://127.0.0.1:{free_port()}")
    assert "cannot reach NATS" in facts.unreachable
    assert facts.local.max_files > 0
    assert next(iter(checks.diagnose(facts))).code == "nats_unreachable"


async def test_a_nats_that_refuses_us_is_told_apart_from_one_that_is_away(tmp_path: Path) -> None:
    extra = "authorization { user: ada, password: secret }"
    async with embedded_server(tmp_path, extra=extra) as server:
        assert await codes(server.url) == {"nats_refused": "error"}
        known = await codes(server.url, user="ada", password="secret")
        assert known == {"no_mesh": "error", "sync_unseen": "note"}
        assert "secret" not in repr(await examined(f"nats://ada:secret@127.0.0.1:{server.port}"))


async def test_no_jetstream_for_this_account(tmp_path: Path) -> None:
    extra = (
        "accounts { A { users: [{user: a, password: a}] }, J { jetstream: enabled, users: [{user: j, password: j}] } }"
    )
    async with embedded_server(tmp_path, extra=extra) as server:
        facts = await examined(server.url, user="a", password="a")
        found = {each.code: each.fix for each in checks.diagnose(facts)}
        assert "jetstream: enabled" in found["no_jetstream"]
        assert "no_mesh" not in found


async def test_an_account_too_small_for_a_mesh(tmp_path: Path) -> None:
    limits = "{ max_streams: 3, max_consumers: 5 }"
    extra = f"accounts {{ A {{ jetstream: {limits}, users: [{{user: a, password: a}}] }} }}"
    async with embedded_server(tmp_path, extra=extra) as server:
        found = await codes(server.url, user="a", password="a")
    assert found["account_streams"] == "error"
    assert found["account_consumers"] == "warning"


async def test_an_old_topology_a_missing_stream_and_a_bucket_that_forgets(mesh: RunningMesh) -> None:
    await edit_stream(mesh.connection, "MESH_EVENTS", republish=None)
    await edit_stream(mesh.connection, "KV_mesh_results", max_age=3600 * topology.NS)
    await api(mesh.connection, "STREAM.DELETE.MESH_DEAD", {})
    advice = checks.diagnose(await examined(mesh.url))
    drifts = {each.text.split()[1]: each.level for each in advice if each.code == "drift"}
    assert drifts == {"MESH_EVENTS": "error", "mesh_results": "warning"}
    (missing,) = [each for each in advice if each.code == "missing"]
    assert missing.text == "MESH_DEAD: missing"
    assert missing.fix == "`mesh init --apply`"


async def test_a_stream_of_that_name_which_is_no_mesh(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server, connect(ConnectOptions(servers=(server.url,))) as connection:
        await api(connection, "STREAM.CREATE.MESH_REQUESTS", {"name": "MESH_REQUESTS", "subjects": ["mesh.req.>"]})
        assert (await codes(server.url))["old_mesh"] == "error"
        assert (await codes(server.url, names=Names("other")))["no_mesh"] == "error"


async def test_consumers_that_drifted_are_missing_or_belong_to_nobody(mesh: RunningMesh) -> None:
    await mesh.start_worker()
    await topology.apply(
        mesh.connection, await topology.plan_consumers(Broker(mesh.connection, NAMES), MeshSettings(), "lonely")
    )
    name = f"{MODEL}-batch-0"
    config = (await api(mesh.connection, f"CONSUMER.INFO.MESH_REQUESTS.{name}", {}))["config"]
    config |= {"ack_wait": 99 * topology.NS}
    body = {"stream_name": "MESH_REQUESTS", "config": config, "action": "update"}
    await api(mesh.connection, f"CONSUMER.CREATE.MESH_REQUESTS.{name}.{config['filter_subject']}", body)
    assert await codes(mesh.url) == {"drift": "warning", "unserved": "note", "sync_unseen": "note"}
    await api(mesh.connection, f"CONSUMER.DELETE.MESH_REQUESTS.{MODEL}-standard-1", {})
    found = checks.diagnose(await examined(mesh.url))
    assert (found[0].code, found[0].fix) == ("missing_consumers", f"`mesh init --model {MODEL} --apply`")


async def test_work_that_waits_for_nobody_and_a_pause(mesh: RunningMesh) -> None:
    async with library.connect(mesh.url) as client:
        await client.submit(MODEL, "Hello", tier="batch")
        await wait_until(lambda: mesh.queued())
        assert (await codes(mesh.url))["no_worker"] == "error"


async def test_storage_in_memory(tmp_path: Path) -> None:
    settings = MeshSettings(storage="memory", events_storage="memory")
    async with running_mesh(tmp_path, settings) as running:
        assert (await codes(running.url))["memory_storage"] == "error"
    settings = MeshSettings(events_storage="memory")
    async with running_mesh(tmp_path / "other", settings) as running:
        assert (await codes(running.url))["memory_events"] == "note"


async def test_the_monitoring_port_shows_how_nats_syncs_and_its_disk(tmp_path: Path) -> None:
    port = free_port()
    store = tmp_path / "nats"
    server = EmbeddedServer(store, extra=f"http: 127.0.0.1:{port}")
    await server.start()
    try:
        async with connect(ConnectOptions(servers=(server.url,))) as connection:
            await topology.apply(connection, await topology.plan(Broker(connection, NAMES), MeshSettings()))
        monitor = f"http://127.0.0.1:{port}"
        facts = await examined(server.url, monitor)
        assert facts.monitor is not None
        assert (facts.monitor.is_same_server, facts.monitor.syncs_always) == (True, False)
        assert facts.monitor.sync_interval_s == 120
        assert facts.monitor.disk_free_bytes is not None
        assert "sync_lazy" in await codes(server.url, monitor)
        async with embedded_server(tmp_path / "other") as other:
            assert (await codes(other.url, monitor))["monitor_other"] == "warning"
        assert (await codes(server.url, f"http://127.0.0.1:{free_port()}"))["monitor_silent"] == "warning"
        assert (await codes(server.url, "ftp://x"))["monitor_silent"] == "warning"
    finally:
        await server.stop(kill=True)


async def test_a_worker_that_is_suspended_does_not_answer(mesh: RunningMesh) -> None:
    child = await mesh.start_child(CHILD)
    os.kill(child.pid, signal.SIGSTOP)
    found = await codes(mesh.url)
    assert found["worker_silent"] == "warning"
    os.kill(child.pid, signal.SIGCONT)


async def test_ports_are_known_by_what_they_speak(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        ports = (server.port, mute.getsockname()[1], free_port())
        monkeypatch.setattr(local_machine, "PORTS", ports)
        found = (await local_machine.look(is_quick=True)).ports
    assert found == [
        PortFacts(port=ports[0], speaks="nats"),
        PortFacts(port=ports[1], speaks="something else"),
        PortFacts(port=ports[2]),
    ]


@pytest.mark.parametrize(
    ("server", "url", "is_local", "asks_for_tls"),
    [
        ("127.0.0.1:4222", "nats://127.0.0.1:4222", True, False),
        ("nats://ada:secret@n1.example:4222", "nats://n1.example:4222", False, False),
        ("tls://n1.example", "tls://n1.example", False, True),
        ("nats://[::1]:4222", "nats://[::1]:4222", True, False),
        ("wss://n1.example:443", "wss://n1.example:443", False, True),
    ],
)
def test_addresses_are_read_and_lose_their_secrets(server: str, url: str, is_local: bool, asks_for_tls: bool) -> None:
    found = address_of(server)
    assert (found.url, found.is_local, found.asks_for_tls) == (url, is_local, asks_for_tls)


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_cluster_that_loses_its_servers(tmp_path: Path) -> None:
    servers = Servers(tmp_path, 3)
    await servers.start()
    try:
        first, second, third = servers.all
        async with connect(ConnectOptions(servers=(first.url,))) as connection:
            await servers.declare(Broker(connection, NAMES), MeshSettings(replicas=3, lanes=1), MODEL)
            assert {"unserved": "note", "sync_unseen": "note"}.items() >= (await codes(first.url)).items()
            await servers.kill(third)

            async def shows(code: str) -> bool:
                return code in await codes(first.url)

            await wait_until(lambda: shows("replica"), 40.0)
            await servers.kill(second)
            await wait_until(lambda: shows("no_leader"), 40.0)
    finally:
        await servers.stop()


async def test_one_copy_in_a_cluster_is_warned_of(tmp_path: Path) -> None:
    servers = Servers(tmp_path, 3)
    await servers.start()
    try:
        url = servers.urls[0]
        async with connect(ConnectOptions(servers=(url,))) as connection:
            await servers.declare(Broker(connection, NAMES), MeshSettings(replicas=1, lanes=1), MODEL)
        assert (await codes(url))["one_copy"] == "warning"
    finally:
        await servers.stop()
