"""The export of spans never delays the process."""

import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mesh.telemetry import tracing


class Stuck(SpanExporter):
    """A collector that takes a batch and never answers."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.released.wait(30)
        return SpanExportResult.FAILURE


async def test_the_end_does_not_wait_for_a_collector_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_S", 0.1)
    exporter = Stuck()
    provider = tracing.provider_of(exporter, "test", "one")
    try:
        provider.get_tracer("test").start_span("span").end()
        began_s = time.monotonic()
        await tracing.shut_down(provider)
        assert time.monotonic() - began_s < 5
    finally:
        exporter.released.set()


def test_more_spans_than_the_queue_holds_are_dropped_at_once() -> None:
    exporter = Stuck()
    provider = tracing.provider_of(exporter, "test", "one")
    tracer = provider.get_tracer("test")
    try:
        began_s = time.monotonic()
        for number in range(10_000):
            tracer.start_span(f"span {number}").end()
        assert time.monotonic() - began_s < 10
    finally:
        exporter.released.set()
        provider.shutdown()


def test_a_process_says_what_and_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    attributes = tracing.provider_of(Stuck(), "mesh-worker", "w-1").resource.attributes
    assert (attributes["service.name"], attributes["service.instance.id"]) == ("mesh-worker", "w-1")


def test_the_operator_s_own_name_for_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    assert tracing.provider_of(Stuck(), "mesh-worker", "w-1").resource.attributes["service.name"] == "ours"
