"""What a look at a mesh finds wrong, and what it does not."""

from typing import Any

import pytest
from msgspec.structs import replace

from mesh.broker.inspect.facts import PeerFacts, StoreFacts
from mesh.control.status.checks import FAR_MS, findings, version_key
from mesh.control.status.depth import QueueDepth, Snapshot, TenantDepth, WorkerSeen
from mesh.protocol.subjects import Names
from tests.unit.control.samples import LANE, NAMES, WORKER, snapshot

REQUESTS = StoreFacts(name="MESH_REQUESTS", kind="stream", messages=0, bytes=0, leader="n1", max_per_subject=100)
QUEUE = QueueDepth(model="m", tier="standard", jobs=3, waiting=2, in_flight=1, pulls=1, lanes=[LANE])
NEARLY_FULL = TenantDepth(tenant="t", jobs=99, fullest=99)
FULL = TenantDepth(tenant="t", jobs=150, fullest=100)
HEALTHY = replace(snapshot(), stores=[REQUESTS], queues=[QUEUE])


def codes(seen: Snapshot) -> list[tuple[str, str]]:
    return [(each.level, each.code) for each in findings(seen, NAMES)]


def seen_worker(**changes: object) -> WorkerSeen:
    return WorkerSeen(presence=replace(WORKER, **changes), beat_unix_ms=9000, age_ms=1000)


def test_a_mesh_that_works_has_no_finding() -> None:
    assert findings(HEALTHY, NAMES) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workers": []}, ("broken", "no_worker")),
        ({"workers": [seen_worker(state="draining")]}, ("notice", "not_ready")),
        ({"workers": [replace(seen_worker(), age_ms=5000)]}, ("notice", "silent")),
        ({"workers": [seen_worker(), seen_worker(worker="w-2", version="0.0.9")]}, ("notice", "old_version")),
        ({"queues": [replace(QUEUE, is_declared=False)]}, ("broken", "undeclared")),
        ({"queues": [replace(QUEUE, redelivered=1)]}, ("notice", "redelivered")),
        ({"queues": [replace(QUEUE, pause_left_ms=60_000)]}, ("notice", "paused")),
        ({"queues": [replace(QUEUE, waiting=5, pulls=0, oldest_waiting_ms=1)]}, ("notice", "busy")),
        (
            {"queues": [replace(QUEUE, tenants=[TenantDepth(tenant="t", jobs=99, fullest=99)])]},
            ("notice", "queue_full"),
        ),
        ({"queues": [replace(QUEUE, tenants=[FULL])]}, ("broken", "queue_full")),
        ({"missing": ["MESH_DEAD"]}, ("broken", "missing")),
        ({"stores": [replace(REQUESTS, leader="")]}, ("broken", "no_leader")),
        ({"stores": [replace(REQUESTS, bytes=95, max_bytes=100)]}, ("broken", "full")),
        ({"stores": [replace(REQUESTS, name="MESH_EVENTS", bytes=95, max_bytes=100)]}, ("notice", "full")),
        (
            {"stores": [replace(REQUESTS, peers=[PeerFacts(name="n2", is_current=False, is_offline=True)])]},
            ("notice", "replica"),
        ),
        ({"dead_letters": 2}, ("notice", "dead_letters")),
        ({"unroutable": 1}, ("notice", "unroutable")),
        ({"server": replace(HEALTHY.server, version="2.12.0")}, ("notice", "old_server")),
        ({"server": replace(HEALTHY.server, rtt_ms=400.0)}, ("notice", "slow")),
        (
            {"server": replace(HEALTHY.server, storage_bytes=95, max_storage_bytes=100)},
            ("broken", "account_full"),
        ),
    ],
)
def test_each_fault_is_found_and_no_other(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert codes(replace(HEALTHY, **changes)) == [expected]


def test_a_server_that_is_away_is_one_finding_however_many_copies_it_has() -> None:
    away = PeerFacts(name="n2", is_current=True, is_offline=True)
    late = PeerFacts(name="n3", is_current=False, is_offline=False, lag=7)
    stores = [replace(REQUESTS, peers=[away, late]), replace(REQUESTS, name="MESH_DEAD", peers=[away])]
    assert [each.text for each in findings(replace(HEALTHY, stores=stores), NAMES)] == [
        "server n2 is away, with its copies of 2 streams",
        "server n3 is up to 7 operations behind in MESH_REQUESTS",
    ]


def test_what_is_broken_comes_first() -> None:
    found = codes(replace(HEALTHY, dead_letters=1, workers=[]))
    assert found == [("broken", "no_worker"), ("notice", "dead_letters")]


def test_a_pause_without_an_end_has_no_time_in_its_text() -> None:
    (ending,) = findings(replace(HEALTHY, queues=[replace(QUEUE, pause_left_ms=120_000)]), NAMES)
    (endless,) = findings(replace(HEALTHY, queues=[replace(QUEUE, pause_left_ms=FAR_MS)]), NAMES)
    assert ending.text == "m/standard is paused for another 2m, with 2 jobs waiting"
    assert (endless.text, endless.next) == (
        "m/standard is paused, with 2 jobs waiting",
        "mesh resume m/standard",
    )


def test_an_empty_queue_needs_no_worker_and_no_attention_when_paused() -> None:
    empty = replace(QUEUE, jobs=0, waiting=0, in_flight=0, pause_left_ms=5, is_declared=True)
    assert codes(replace(HEALTHY, queues=[empty], workers=[])) == []


def test_versions_compare_by_their_numbers() -> None:
    assert version_key("2.14.10") > version_key("2.14.9-beta.1") > version_key("2.9.99")
    assert version_key("0.2.dev1") == (0, 2, 0)


def test_the_streams_of_another_namespace_are_judged_by_its_names() -> None:
    full = replace(REQUESTS, name="TEAM_EVENTS", bytes=95, max_bytes=100)
    found = findings(replace(HEALTHY, stores=[full]), Names("team"))
    assert [(each.level, each.code) for each in found] == [("notice", "full")]
