"""Sends traces to an OpenTelemetry collector, for a command that was told where one is.

Spans wait in a bounded queue and are sent by a thread: a collector that is away costs spans, and nothing else. Needs
OpenTelemetry (the extra `tracing`).
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

import mesh

EXPORT_S = 5.0  # for one batch, with what is tried again
LAST_S = 3.0  # in the end, for the spans that still wait
PATH = "/v1/traces"


@contextlib.asynccontextmanager
async def exported(endpoint: str | None, service: str, who: str) -> AsyncIterator[trace.Tracer]:
    """A tracer, which every client in this process uses too, for as long as the context lasts.

    Args:
        endpoint: the collector's address, such as http://127.0.0.1:4318; None: as OTEL_EXPORTER_OTLP_ENDPOINT and its
            kin have it.
        service: what kind of process this is. `who`: which.
    """
    address = endpoint.rstrip("/").removesuffix(PATH) + PATH if endpoint is not None else None
    exporter = OTLPSpanExporter(endpoint=address, timeout=EXPORT_S)
    provider = provider_of(exporter, service, who)
    trace.set_tracer_provider(provider)
    try:
        yield provider.get_tracer("mesh", mesh.__version__)
    finally:
        await shut_down(provider)


def provider_of(exporter: SpanExporter, service: str, who: str) -> TracerProvider:
    """A provider that hands its spans to `exporter`, in a thread."""
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    resource = Resource.create({**named, "service.instance.id": who, "service.version": mesh.__version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


async def shut_down(provider: TracerProvider) -> None:
    """Send what waits, as far as that goes in time; the thread is left to itself then."""
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop was faster
            loop.call_soon_threadsafe(is_over.set)

    threading.Thread(target=work, name="mesh-last-spans", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_S):
            await is_over.wait()
