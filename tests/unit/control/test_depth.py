"""How counts become queues, and two looks become rates."""

import msgspec
from msgspec.structs import replace

from mesh.broker.inspect.facts import read_lane, read_store, silent_store
from mesh.control.status.depth import Snapshot, rates, read_queues
from tests.unit.control.samples import LANE, NAMES, WORKER, snapshot


def test_jobs_are_counted_by_tenant_over_the_lanes_and_the_fullest_lane_is_known() -> None:
    depths = {
        "mesh.req.m.standard.a.0": 3,
        "mesh.req.m.standard.a.1": 5,
        "mesh.req.m.standard.b.1": 9,
        "mesh.req.m.batch.b.1": 1,
    }
    queues, unroutable = read_queues(NAMES, depths, [LANE, replace(LANE, name="m-standard-1", lane="1", pending=8)])
    assert [(each.model, each.tier, each.jobs, each.is_declared) for each in queues] == [
        ("m", "standard", 17, True),
        ("m", "batch", 1, False),
    ]
    assert [(each.tenant, each.jobs, each.fullest) for each in queues[0].tenants] == [("b", 9, 9), ("a", 8, 5)]
    assert (queues[0].waiting, queues[0].in_flight) == (15, 4)
    assert (queues[1].waiting, unroutable) == (1, 0)  # nobody takes from it, so all of it waits


def test_a_queue_with_consumers_and_no_job_is_shown_and_a_subject_of_no_job_is_a_stray() -> None:
    queues, unroutable = read_queues(NAMES, {"mesh.req.what": 2}, [replace(LANE, pending=0, in_flight=0)])
    assert [(each.model, each.jobs) for each in queues] == [("m", 0)]
    assert unroutable == 2


def test_a_lane_is_read_by_what_it_takes_and_a_consumer_of_somebody_else_is_none() -> None:
    config = {"filter_subject": "mesh.req.Qwen2-5-0-5B.batch.*.3"}
    paused = {"config": config, "paused": True, "pause_remaining": 60_000_000_000, "num_ack_pending": 2}
    lane = read_lane(NAMES, "Qwen2-5-0-5B-batch-3", paused)
    assert lane is not None
    assert (lane.model, lane.tier, lane.lane, lane.in_flight) == ("Qwen2-5-0-5B", "batch", "3", 2)
    assert lane.pause_left_ms == 60_000
    assert read_lane(NAMES, "backup", {"config": config}) is None
    assert read_lane(NAMES, "backup", {"config": {}}) is None


def test_a_bucket_has_the_name_that_users_know_it_by() -> None:
    answer = {
        "config": {"name": "KV_mesh_results", "max_bytes": -1, "max_age": 5_000_000_000, "num_replicas": 3},
        "state": {"messages": 4, "bytes": 99, "last_seq": 12},
        "cluster": {"leader": "n1", "replicas": [{"name": "n2", "current": False, "lag": 7, "offline": True}]},
    }
    store = read_store(answer)
    assert (store.name, store.kind, store.max_bytes, store.max_age_ms) == ("mesh_results", "bucket", 0, 5000)
    assert (store.leader, store.peers[0].lag, store.peers[0].is_offline) == ("n1", 7, True)


def test_rates_are_what_happened_between_two_looks_a_second() -> None:
    before = snapshot()
    after = snapshot(
        unix_ms=12_000,
        lane=replace(LANE, pending=3, in_flight=4, deliveries=20),  # 6 more were stored, 8 ended
        worker=replace(WORKER, finished=14, tokens=300),
        beat=11_000,
        last=23,
    )
    found = rates(before, after, NAMES.requests_stream)
    assert (found.span_s, found.submitted_per_s, found.ended_per_s, found.tokens_per_s) == (2.0, 3.0, 4.0, 100.0)
    assert [(each.model, each.submitted_per_s, each.ended_per_s, each.tokens_per_s) for each in found.models] == [
        ("m", 3.0, 4.0, 100.0)
    ]
    assert [(each.worker, each.ended_per_s, each.tokens_per_s) for each in found.workers] == [("w-1", 3.0, 100.0)]


def test_a_worker_that_has_not_spoken_since_or_began_anew_has_no_rate() -> None:
    silent = rates(snapshot(), snapshot(unix_ms=11_000), NAMES.requests_stream)
    assert (silent.workers[0].tokens_per_s, silent.tokens_per_s, silent.models[0].tokens_per_s) == (None, None, None)
    anew = replace(WORKER, started_unix_ms=6, tokens=3)
    restarted = rates(snapshot(), snapshot(unix_ms=12_000, worker=anew, beat=11_000), NAMES.requests_stream)
    assert restarted.workers[0].tokens_per_s is None


def test_counters_that_began_anew_are_no_negative_rate() -> None:
    found = rates(snapshot(), snapshot(unix_ms=12_000, lane=replace(LANE, deliveries=0), last=1), NAMES.requests_stream)
    assert (found.submitted_per_s, found.models[0].submitted_per_s, found.models[0].ended_per_s) == (0, 0, 0)


def test_a_snapshot_survives_its_json() -> None:
    made = snapshot()
    assert msgspec.json.decode(msgspec.json.encode(made), type=Snapshot) == made


def test_a_copy_that_its_leader_has_not_heard_of_is_away_before_the_cluster_says_so() -> None:
    def peer(**answer: object) -> bool:
        cluster = {"leader": "n1", "replicas": [{"name": "n2", "current": True} | answer]}
        state = {"messages": 0, "bytes": 0, "last_seq": 0}
        return read_store({"config": {"name": "S"}, "state": state, "cluster": cluster}).peers[0].is_offline

    assert not peer()
    assert not peer(active=900_000_000)
    assert peer(active=8_000_000_000)
    assert peer(offline=True)


def test_a_stream_that_does_not_answer_is_known_by_its_name_and_has_no_leader() -> None:
    store = silent_store("KV_mesh_results")
    assert (store.name, store.kind, store.leader) == ("mesh_results", "bucket", "")
