"""Signals are counted, and the page shows the counts."""

from typing import Any

import pytest

from mesh.signals import (
    CHUNK_TOKENS,
    ConnectionChanged,
    EngineDied,
    JobBuried,
    JobEndedUnrun,
    JobReturned,
    RequestAccepted,
    RequestDenied,
    RequestRefused,
    Step,
    Tally,
)
from mesh.telemetry.collectors import EngineCollector, GpuCollector, MeshCollector, WorkerCollector
from mesh.telemetry.metrics import Metrics
from mesh.telemetry.readings import EngineReading, GpuReading, MeshReading, QueueReading, StoreReading, WorkerReading
from mesh.telemetry.shapes import MOST_CODES, MOST_MODELS, MOST_TENANTS
from tests.unit.telemetry.signals import REF, delivered, ended, engine_ended, ref, started


def values(metrics: Metrics) -> dict[str, float]:
    """Return every series of the page."""
    lines = (line for line in metrics.page().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_one_job_is_counted_from_its_delivery_to_its_result(metrics: Metrics) -> None:
    for signal in (delivered(), started(), engine_ended(), ended()):
        metrics.observe(signal)
    shown = values(metrics)
    queue = 'model="demo",tier="standard"'
    assert shown[f'mesh_deliveries_total{{delivery="first",{queue}}}'] == 1
    assert shown[f"mesh_attempts_total{{{queue}}}"] == 1
    assert shown['mesh_jobs_total{code="",model="demo",status="finished",tier="standard"}'] == 1
    assert shown[f"mesh_queue_seconds_sum{{{queue}}}"] == 0.25
    assert shown['mesh_engine_seconds_sum{model="demo",outcome="finished",tier="standard"}'] == 2.0
    assert shown[f"mesh_first_token_seconds_sum{{{queue}}}"] == 0.8
    assert shown[f"mesh_engine_first_token_seconds_sum{{{queue}}}"] == 0.5
    assert shown[f"mesh_output_token_seconds_sum{{{queue}}}"] == pytest.approx(0.1)
    assert shown['mesh_job_seconds_sum{model="demo",status="finished",tier="standard"}'] == 2.3
    assert shown['mesh_prompt_tokens_total{model="demo",tenant="acme"}'] == 7
    assert shown['mesh_cached_tokens_total{model="demo",tenant="acme"}'] == 3
    assert shown['mesh_output_tokens_total{model="demo",tenant="acme"}'] == 16


def test_a_job_that_comes_again_has_waited_for_nobody_knows_what(metrics: Metrics) -> None:
    metrics.observe(delivered(delivered=2, queued_ms=60_000))
    shown = values(metrics)
    assert shown['mesh_deliveries_total{delivery="again",model="demo",tier="standard"}'] == 1
    assert not any(name.startswith("mesh_queue_seconds_count") for name in shown)


def test_takeovers_are_counted_by_their_cause(metrics: Metrics) -> None:
    metrics.observe(started())
    metrics.observe(started(attempt=2, index=5, taken_from="w-1", cause="worker_lost"))
    shown = values(metrics)
    assert shown['mesh_takeovers_total{cause="worker_lost",model="demo",tier="standard"}'] == 1
    assert shown['mesh_attempts_total{model="demo",tier="standard"}'] == 2


def test_whatever_goes_wrong_has_a_counter(metrics: Metrics) -> None:
    for signal in (
        JobReturned(REF, reason="drain"),
        JobBuried(REF, code="attempts_exhausted", attempts=3),
        RequestRefused(REF, code="invalid_request", reason="a text nobody counts"),
        EngineDied("a text nobody counts"),
        ConnectionChanged(False),
        ConnectionChanged(True),
        Step("j1", "ack", "before"),
    ):
        metrics.observe(signal)
    shown = values(metrics)
    queue = 'model="demo",tier="standard"'
    assert shown['mesh_jobs_returned_total{model="demo",reason="drain",tier="standard"}'] == 1
    assert shown[f'mesh_jobs_buried_total{{code="attempts_exhausted",{queue}}}'] == 1
    assert shown[f'mesh_requests_refused_total{{code="invalid_request",{queue}}}'] == 1
    assert shown["mesh_engine_deaths_total"] == 1
    assert shown["mesh_nats_connection_losses_total"] == 1
    assert "a text nobody counts" not in metrics.page().decode()


def test_invented_tenants_and_codes_do_not_fill_the_page(metrics: Metrics) -> None:
    for number in range(500):
        metrics.observe(ended(ref=ref(tenant=f"tenant-{number}"), status="failed", code=f"code-{number}"))
    shown = values(metrics)
    assert len([name for name in shown if name.startswith("mesh_output_tokens_total")]) == MOST_TENANTS + 1
    assert len([name for name in shown if name.startswith("mesh_jobs_total")]) == MOST_CODES + 1
    assert shown['mesh_output_tokens_total{model="demo",tenant="other"}'] == 16 * (500 - MOST_TENANTS)


def test_what_no_worker_sees_is_counted_by_who_does(metrics: Metrics) -> None:
    unrun: dict[str, Any] = {"status": "expired", "code": "expired", "cause": "deadline", "total_ms": 4000}
    metrics.observe(JobEndedUnrun(REF, **unrun))
    metrics.observe(RequestAccepted(REF))
    for number in range(500):
        metrics.observe(RequestDenied("any", f"invented-{number}", "model_not_found"))
        metrics.observe(JobEndedUnrun(ref(model=f"invented-{number}"), **unrun))
    shown = values(metrics)
    assert shown['mesh_jobs_total{code="expired",model="demo",status="expired",tier="standard"}'] == 1
    assert shown['mesh_job_seconds_sum{model="demo",status="expired",tier="standard"}'] == 4
    assert shown['mesh_frontdoor_accepted_total{model="demo",tier="standard"}'] == 1
    assert shown['mesh_frontdoor_refused_total{code="model_not_found"}'] == 500
    assert len([name for name in shown if name.startswith("mesh_jobs_total")]) == MOST_MODELS + 1


def test_no_series_has_a_creation_time_beside_it(metrics: Metrics) -> None:
    metrics.observe(ended())
    assert "_created" not in metrics.page().decode()


def test_each_family_has_a_help_text_and_base_units(metrics: Metrics) -> None:
    for signal in (delivered(), started(), engine_ended(), ended()):
        metrics.observe(signal)
    helps = [line.split(" ", 3) for line in metrics.page().decode().splitlines() if line.startswith("# HELP mesh_")]
    assert all(len(parts) == 4 and parts[3].endswith(".") for parts in helps)
    assert not any(unit in parts[2] for parts in helps for unit in ("_ms", "_minutes", "_kb", "_mb", "_percent"))


def test_what_is_polled_is_shown_as_it_was_read() -> None:
    queue = QueueReading("demo", "batch", 5, 2, 1, 4, True, 90.0, 30.0)
    mesh = MeshReading(1e9, [queue], [StoreReading("MESH_REQUESTS", 7, 700)], [("demo", "ready", 3)], 4, 6)
    tally = Tally()
    tally.published(CHUNK_TOKENS[1])
    tally.renewals = 9
    metrics = Metrics(
        [
            MeshCollector(lambda: mesh),
            WorkerCollector("demo", lambda: WorkerReading("demo", True, False, 3, 8, 2, 5), tally),
            EngineCollector(lambda: EngineReading("vllm", "demo", 3, 1, 0.5, 100, 40, None)),
            GpuCollector(lambda: [GpuReading("0", "H100", 0.9, 10, 80)]),
        ]
    )
    shown = values(metrics)
    at = 'model="demo",tier="batch"'
    assert shown[f"mesh_queue_waiting_jobs{{{at}}}"] == 5
    assert shown[f"mesh_queue_in_flight_jobs{{{at}}}"] == 2
    assert shown[f"mesh_queue_oldest_waiting_seconds{{{at}}}"] == 30
    assert shown[f"mesh_queue_paused{{{at}}}"] == 1
    assert shown["mesh_dead_letters"] == 4
    assert shown["mesh_unserved_jobs"] == 6
    assert shown['mesh_workers{model="demo",state="ready"}'] == 3
    assert shown['mesh_store_bytes{store="MESH_REQUESTS"}'] == 700
    assert shown['mesh_worker_ready{model="demo"}'] == 1
    assert shown['mesh_nats_connected{model="demo"}'] == 0
    assert shown['mesh_worker_free_credits{model="demo"}'] == 2
    assert shown['mesh_event_tokens_sum{model="demo"}'] == 2
    assert shown['mesh_lease_renewals_total{model="demo",outcome="confirmed"}'] == 9
    assert shown['mesh_engine_kv_cache_usage_ratio{engine="vllm",model="demo"}'] == 0.5
    assert shown['mesh_engine_prefix_cache_hit_tokens_total{engine="vllm",model="demo"}'] == 40
    assert shown['mesh_gpu_busy_ratio{gpu="0",name="H100"}'] == 0.9
    assert not any(name.startswith("mesh_engine_preemptions") for name in shown)


def test_what_is_not_known_is_not_shown() -> None:
    metrics = Metrics(
        [
            MeshCollector(lambda: None),
            WorkerCollector("demo", lambda: None, Tally()),
            EngineCollector(lambda: None),
            GpuCollector(list),
        ]
    )
    shown = metrics.page().decode()
    assert not any(word in shown for word in ("mesh_queue_waiting", "mesh_worker_ready", "mesh_engine_run", "mesh_gpu"))
