"""The spans of a worker's jobs, from its signals."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mesh.signals import JobBuried, JobReturned, RequestRefused, Signal
from mesh.telemetry.worker_tracing import WorkerTracing
from tests.running import present
from tests.unit.telemetry.signals import REF, delivered, ended, engine_ended, ref, started

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Bench:
    """A worker's tracing with a clock of its own, and what came of it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.now_ns = 10**18
        self.tracing = WorkerTracing(provider.get_tracer("test"), "w-2", lambda: self.now_ns)

    def tell(self, *signals: Signal) -> None:
        for signal in signals:
            self.now_ns += 10**9
            self.tracing.observe(signal)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_job_s_spans_belong_to_the_span_of_its_submitter(bench: Bench) -> None:
    bench.tell(delivered(traceparent=PARENT), started(), engine_ended(), ended())
    spans = bench.spans
    assert set(spans) == {"queue demo", "process demo", "chat demo", "end demo"}
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    for name in ("queue demo", "process demo"):
        assert f"{present(spans[name].parent).span_id:016x}" == SPAN
    for name in ("chat demo", "end demo"):
        assert spans["process demo"].context is not None
        assert present(spans[name].parent).span_id == spans["process demo"].context.span_id
    assert spans["process demo"].kind is SpanKind.CONSUMER
    assert spans["process demo"].attributes is not None
    assert spans["process demo"].attributes["mesh.worker"] == "w-2"


def test_each_part_has_its_time(bench: Bench) -> None:
    bench.tell(delivered(traceparent=PARENT), started(), engine_ended(seconds=0.5), ended())
    spans = bench.spans
    queue, engine, ending = (spans[name] for name in ("queue demo", "chat demo", "end demo"))
    assert present(queue.end_time) - present(queue.start_time) == 250 * 10**6
    assert spans["process demo"].start_time == queue.end_time
    assert present(engine.end_time) - present(engine.start_time) == 5 * 10**8
    assert ending.start_time == engine.end_time


def test_the_engine_s_span_speaks_the_conventions_for_generative_ai(bench: Bench) -> None:
    bench.tell(delivered(traceparent=PARENT), started(), engine_ended(), ended())
    assert dict(present(bench.spans["chat demo"].attributes)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "simulator",
        "gen_ai.request.model": "demo",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 16,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.5,
    }


def test_a_takeover_says_from_whom_and_why(bench: Bench) -> None:
    again = started(attempt=2, index=37, taken_from="w-1", cause="worker_lost")
    bench.tell(delivered(traceparent=PARENT, delivered=2), again, engine_ended(attempt=2), ended(attempts=2))
    spans = bench.spans
    assert "queue demo" not in spans
    known = present(spans["process demo"].attributes)
    assert (known["mesh.attempt"], known["mesh.resumed_at_tokens"]) == (2, 37)
    assert (known["mesh.takeover.from"], known["mesh.takeover.cause"]) == ("w-1", "worker_lost")


def test_a_failed_attempt_is_an_error_and_the_next_one_a_span_of_its_own(bench: Bench) -> None:
    failed = engine_ended(is_finished=False, outcome="engine_error")
    bench.tell(delivered(traceparent=PARENT), started(), failed, JobReturned(REF, reason="retry"))
    assert bench.spans["process demo"].status.status_code is StatusCode.ERROR
    assert bench.spans["chat demo"].attributes is not None
    assert bench.spans["chat demo"].attributes["mesh.stopped"] == "engine_error"
    bench.tell(delivered(traceparent=PARENT, delivered=2), started(attempt=2), engine_ended(), ended())
    assert [span.name for span in bench.exporter.get_finished_spans()].count("process demo") == 2


def test_a_job_handed_back_by_a_drain_is_no_error(bench: Bench) -> None:
    stopped = engine_ended(is_finished=False, outcome="drain")
    bench.tell(delivered(traceparent=PARENT), started(), stopped, JobReturned(REF, reason="drain"))
    assert bench.spans["process demo"].status.status_code is StatusCode.UNSET
    assert bench.spans["process demo"].attributes is not None
    assert bench.spans["process demo"].attributes["mesh.returned"] == "drain"


def test_without_a_traceparent_what_the_worker_does_is_one_trace(bench: Bench) -> None:
    bench.tell(delivered(), started(), engine_ended(), ended())
    assert len({span.context.trace_id for span in bench.spans.values()}) == 1


@pytest.mark.parametrize(
    "traceparent", ["", "nonsense", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 99]
)
def test_a_broken_traceparent_breaks_nothing(bench: Bench, traceparent: str) -> None:
    bench.tell(delivered(traceparent=traceparent), started(), engine_ended(), ended())
    assert "process demo" in bench.spans


def test_a_refused_body_is_a_short_span_with_its_code(bench: Bench) -> None:
    refused = RequestRefused(REF, code="invalid_request", reason="a text nobody shows")
    bench.tell(delivered(traceparent=PARENT), refused, ended(status="failed", code="invalid_request"))
    span = bench.spans["process demo"]
    assert span.attributes is not None
    assert span.attributes["error.type"] == "invalid_request"
    assert span.status.status_code is StatusCode.ERROR
    assert "a text nobody shows" not in span.to_json()


def test_a_dead_letter_is_an_event_of_its_attempt(bench: Bench) -> None:
    buried = JobBuried(REF, code="attempts_exhausted", attempts=3)
    bench.tell(delivered(traceparent=PARENT), started(), buried, ended(status="failed", code="attempts_exhausted"))
    assert [event.name for event in bench.spans["process demo"].events] == ["dead letter"]


def test_nothing_is_kept_of_jobs_that_ended(bench: Bench) -> None:
    bench.tell(
        delivered(), started(), engine_ended(), ended(), delivered(ref=ref(id="j2")), JobReturned(REF, reason="lost")
    )
    assert list(bench.tracing._jobs) == [("acme", "j2")]


def test_what_is_open_when_the_worker_ends_is_ended_as_an_error(bench: Bench) -> None:
    bench.tell(delivered(traceparent=PARENT), started())
    bench.tracing.close()
    assert bench.spans["process demo"].status.status_code is StatusCode.ERROR
