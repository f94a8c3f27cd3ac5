"""What is measured and traced of a real mesh, by a real worker and a real client."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import mesh as mesh_api
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import connect
from mesh.control.status import mesh_exporter
from mesh.control.status.mesh_exporter import MeshExporter
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import MeshError
from mesh.protocol.messages import Started
from mesh.signals import AttemptStarted, EngineEnded, JobBuried, JobDelivered, Signal, Tally, all_of
from mesh.telemetry.metrics import Metrics
from mesh.telemetry.worker_tracing import WorkerTracing
from mesh.worker.worker import WorkerOptions
from tests.running import MODEL, RunningMesh, present, running_mesh, wait_until

SETTINGS = SimulatorSettings(model=MODEL, first_token_ms=5, between_tokens_ms=5)


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh without a worker."""
    async with running_mesh(tmp_path / "nats") as running:
        yield running


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Spans of this process, as a program has them that set OpenTelemetry up."""
    made = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return made


def options(**fields: Any) -> WorkerOptions:
    return WorkerOptions(model=MODEL, grace_s=0.0, shows_steps=False, **fields)


def shown(metrics: Metrics, name: str) -> float:
    """The sum of a name's series."""
    lines = [line for line in metrics.page().decode().splitlines() if line.startswith((name + "{", name + " "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_jobs_tokens_and_times_are_counted_where_they_happen(bare: RunningMesh) -> None:
    metrics, tally = Metrics(), Tally()
    worker = await bare.start_worker(SETTINGS, options(tally=tally), observer=metrics.observe)
    async with mesh_api.connect(bare.url, tenant="acme") as client:
        results = await asyncio.gather(*(client.generate(MODEL, f"Story {n}", max_tokens=20) for n in range(5)))
        streamed = await client.submit(MODEL, "One more", max_tokens=30)
        await streamed
        await wait_until(lambda: shown(metrics, "mesh_jobs_total") == 6)  # told after the ack, which no reader awaits
    assert shown(metrics, "mesh_attempts_total") == 6
    assert shown(metrics, "mesh_queue_seconds_count") == 6
    assert shown(metrics, "mesh_engine_seconds_count") == 6
    assert shown(metrics, "mesh_output_tokens_total") == sum(r.usage.completion_tokens for r in results) + 30
    assert 0.004 < shown(metrics, "mesh_output_token_seconds_sum") / 6 < 1
    assert 'tenant="acme"' in metrics.page().decode()
    assert tally.event_tokens >= 30
    assert 30 >= tally.events == sum(tally.events_by_tokens) > 0
    assert sum(tally.gaps) > 0
    assert worker.statistics().free <= worker.statistics().capacity


async def test_renewals_are_counted(tmp_path: Path) -> None:
    tally = Tally()
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, ack_wait_s=1.0)) as mesh:
        await mesh.start_worker(SETTINGS, options(tally=tally))
        async with mesh_api.connect(mesh.url) as client:
            job = await client.submit(MODEL, "Long", max_tokens=2000)
            await wait_until(lambda: tally.renewals >= 2)
            await job.cancel()
    assert tally.refused_renewals == 0


async def test_no_step_is_told_where_none_is_wanted(bare: RunningMesh) -> None:
    seen: list[str] = []
    await bare.start_worker(SETTINGS, options(), observer=lambda signal: seen.append(type(signal).__name__))
    async with mesh_api.connect(bare.url) as client:
        await client.generate(MODEL, "Story", max_tokens=20, stream=True)
        await wait_until(lambda: "JobEnded" in seen)
    assert "Step" not in seen


@pytest.mark.parametrize(
    ("simulate", "cause"),
    [({"fail_after": 3, "times": 1}, "engine_failed"), ({"die_after": 3, "fresh_only": True}, "engine_died")],
)
async def test_a_takeover_after_an_engine_s_fault_names_it(
    bare: RunningMesh, simulate: dict[str, Any], cause: str
) -> None:
    seen: list[Signal] = []
    await bare.start_worker(SETTINGS, options(), observer=seen.append)
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Story", max_tokens=10, metadata={"simulate": simulate})
        assert (await job).attempts == 2
    started = [signal for signal in seen if isinstance(signal, AttemptStarted)]
    assert [signal.cause for signal in started] == [None, cause]
    ended = [signal for signal in seen if isinstance(signal, EngineEnded)]
    assert [signal.is_finished for signal in ended] == [False, True]
    assert ended[0].outcome == ("engine_error" if cause == "engine_failed" else "engine_dead")


async def test_a_takeover_from_a_worker_that_drains_is_a_handover(bare: RunningMesh) -> None:
    first = await bare.start_worker(SETTINGS, options())
    seen: list[Signal] = []
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Story", max_tokens=400)
        async for _ in job:
            break
        await bare.start_worker(SETTINGS, options(), observer=seen.append)
        first.drain()
        await wait_until(lambda: any(isinstance(signal, AttemptStarted) for signal in seen))
        await job.cancel()
    (started,) = [signal for signal in seen if isinstance(signal, AttemptStarted)]
    assert (started.cause, started.taken_from) == ("handed_back", first.name)


async def test_a_takeover_from_a_worker_that_left_no_word_is_a_loss(bare: RunningMesh) -> None:
    seen: list[Signal] = []
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Story", max_tokens=10)
        began = Started(id=job.id, attempt=1, index=0, worker="w-gone", unix_ms=1, sequence=job.sequence)
        await bare.append(job.id, began, 0)
        await bare.start_worker(SETTINGS, options(), observer=seen.append)
        assert (await job).attempts == 2
    (started,) = [signal for signal in seen if isinstance(signal, AttemptStarted)]
    assert (started.cause, started.taken_from) == ("worker_lost", "w-gone")


async def test_a_dead_letter_is_told(bare: RunningMesh) -> None:
    seen: list[Signal] = []
    await bare.start_worker(SETTINGS, options(), observer=seen.append)
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Story", metadata={"simulate": {"fail": True}})
        assert (await job).status == "failed"
    (buried,) = [signal for signal in seen if isinstance(signal, JobBuried)]
    assert (buried.code, buried.attempts) == ("attempts_exhausted", 3)


@pytest.fixture
def quick_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_exporter, "POLL_S", 0.1)
    monkeypatch.setattr(mesh_exporter, "PRESENCE_BEAT_S", 0.1)
    monkeypatch.setattr(mesh_exporter, "PATIENT_S", 0.1)


async def test_of_all_that_are_scraped_one_shows_the_mesh_and_another_after_it(
    bare: RunningMesh, quick_exporter: None
) -> None:
    exporters = [MeshExporter(f"process-{n}") for n in range(3)]
    async with connect(bare.options()) as connection:
        tasks = [asyncio.create_task(each.run(Broker(connection, bare.names))) for each in exporters]
        async with mesh_api.connect(bare.url) as client:
            await client.submit(MODEL, "It waits", tier="batch")

        def showing() -> list[int]:
            return [n for n, each in enumerate(exporters) if each.asked() is not None]

        await wait_until(showing)
        (first,) = showing()
        reading = exporters[first].asked()
        assert reading is not None
        (batch,) = [queue for queue in reading.queues if queue.tier == "batch"]
        assert (batch.waiting, batch.in_flight) == (1, 0)
        assert batch.oldest_waiting_s is not None
        tasks[first].cancel()
        await wait_until(lambda: (now := showing()) and now != [first], 20)
        assert len(showing()) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_nothing_is_polled_while_nobody_scrapes(
    bare: RunningMesh, quick_exporter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    async def look(*_: object) -> None:
        looks.append(1)
        raise MeshError("not now")

    monkeypatch.setattr(mesh_exporter, "snapshot", look)
    monkeypatch.setattr(mesh_exporter, "IDLE_S", 0.3)
    exporter = MeshExporter("process")
    async with connect(bare.options()) as connection:
        task = asyncio.create_task(exporter.run(Broker(connection, bare.names)))
        assert looks == []
        exporter.asked()
        await wait_until(lambda: looks)
        await wait_until(lambda: not exporter.is_asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_models_that_clients_invent_are_counted_and_not_named(bare: RunningMesh, quick_exporter: None) -> None:
    for number in range(3):
        await bare.connection.request(bare.names.request(f"invented-{number}", "standard", "default", "a"), b"{}")
    mesh_exporter = MeshExporter("process")
    async with connect(bare.options()) as connection:
        task = asyncio.create_task(mesh_exporter.run(Broker(connection, bare.names)))
        await wait_until(lambda: mesh_exporter.asked() is not None)
        reading = mesh_exporter.asked()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert reading is not None
    assert reading.unserved_jobs == 3
    assert {queue.model for queue in reading.queues} == {MODEL}


async def test_one_trace_goes_from_the_client_through_the_queue_to_the_engine(
    bare: RunningMesh, exporter: InMemorySpanExporter
) -> None:
    tracing = WorkerTracing(trace.get_tracer("test"), "w-1")
    seen: list[Signal] = []
    await bare.start_worker(SETTINGS, options(), observer=all_of(tracing.observe, seen.append))
    async with mesh_api.connect(bare.url) as client:
        with trace.get_tracer("program").start_as_current_span("a program's own") as own:
            result = await client.generate(MODEL, "PROMPT-CANARY", max_tokens=10, temperature=0.5)
        await wait_until(lambda: any(span.name == f"end {MODEL}" for span in exporter.get_finished_spans()))
    spans = {span.name: span for span in exporter.get_finished_spans() if span.kind is not SpanKind.INTERNAL}
    inner = {span.name: span for span in exporter.get_finished_spans() if span.kind is SpanKind.INTERNAL}
    assert {span.context.trace_id for span in exporter.get_finished_spans()} == {own.get_span_context().trace_id}
    whole, send, process = (spans[f"{name} {MODEL}"] for name in ("text_completion", "send", "process"))
    assert whole.parent is not None
    assert whole.parent.span_id == own.get_span_context().span_id
    assert (whole.kind, send.kind, process.kind) == (SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert whole.context is not None
    assert send.parent is not None
    assert send.parent.span_id == whole.context.span_id
    assert send.context is not None
    assert process.parent is not None
    assert process.parent.span_id == present(inner[f"queue {MODEL}"].parent).span_id == send.context.span_id
    assert process.context is not None
    assert present(inner[f"text_completion {MODEL}"].parent).span_id == process.context.span_id
    assert whole.attributes is not None
    assert whole.attributes["gen_ai.usage.output_tokens"] == result.usage.completion_tokens
    assert whole.attributes["gen_ai.request.temperature"] == 0.5
    assert whole.attributes["mesh.status"] == "finished"
    delivered = next(signal for signal in seen if isinstance(signal, JobDelivered))
    assert delivered.traceparent.split("-")[2] == f"{send.context.span_id:016x}"
    told = " ".join(span.to_json() for span in exporter.get_finished_spans())
    assert "PROMPT-CANARY" not in told
    assert result.text.strip() not in told


async def test_a_job_that_fails_and_one_that_is_not_stored_are_errors_in_the_client_s_trace(
    bare: RunningMesh, exporter: InMemorySpanExporter
) -> None:
    await bare.start_worker(SETTINGS, options())
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Story", metadata={"simulate": {"refuse": "SECRET-REASON"}})
        assert (await job).status == "failed"
        left = await client.submit(MODEL, "Long", max_tokens=500)
        left.close()
        await bare.server.stop()
        with pytest.raises(MeshError):
            await client.submit(MODEL, "Story", timeout=0.5)
    failed, gone, unstored = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "invalid_request"
    assert gone.attributes is not None
    assert gone.attributes["mesh.left"] is True
    assert gone.status.status_code is StatusCode.UNSET
    assert unstored.status.status_code is StatusCode.ERROR
    assert "SECRET-REASON" not in " ".join(span.to_json() for span in exporter.get_finished_spans())


async def test_a_traceparent_that_is_given_is_the_parent(bare: RunningMesh, exporter: InMemorySpanExporter) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await bare.start_worker(SETTINGS, options())
    async with mesh_api.connect(bare.url) as client:
        await client.generate(MODEL, "Story", max_tokens=2, traceparent=given)
    (whole,) = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert f"{whole.context.trace_id:032x}" == given.split("-")[1]
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == given.split("-")[2]


async def test_where_nobody_traces_a_traceparent_travels_as_it_is(bare: RunningMesh) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[Signal] = []
    await bare.start_worker(SETTINGS, options(), observer=seen.append)
    async with mesh_api.connect(bare.url) as client:
        await client.generate(MODEL, "Story", max_tokens=2, traceparent=given)
    assert next(signal for signal in seen if isinstance(signal, JobDelivered)).traceparent == given
