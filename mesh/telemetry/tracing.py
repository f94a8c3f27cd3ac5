"""Sends traces to an OpenTelemetry collector.

Spans wait in a bounded queue, and a thread sends them. While the collector is unreachable, spans are lost, and nothing
else is affected. Needs OpenTelemetry (the extra `tracing`).
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

EXPORT_S = 5.0  # for one batch, retries included
LAST_S = 3.0  # at the end, for the spans that still wait
PATH = "/v1/traces"


@contextlib.asynccontextmanager
async def exported(endpoint: str | None, service: str, instance: str) -> AsyncIterator[trace.Tracer]:
    """Open a tracer while the context is open; every client in this process uses it too.

    Args:
        endpoint: the collector's address, such as http://127.0.0.1:4318; None: from the environment, as in
            OTEL_EXPORTER_OTLP_ENDPOINT.
        service: the kind of process, for `service.name`.
        instance: the process's own id, for `service.instance.id`.
    """
    address = endpoint.rstrip("/").removesuffix(PATH) + PATH if endpoint is not None else None
    exporter = OTLPSpanExporter(endpoint=address, timeout=EXPORT_S)
    provider = provider_of(exporter, service, instance)
    trace.set_tracer_provider(provider)
    try:
        yield provider.get_tracer("mesh", mesh.__version__)
    finally:
        await shut_down(provider)


def provider_of(exporter: SpanExporter, service: str, instance: str) -> TracerProvider:
    """Return a provider that hands its spans to `exporter` in a thread."""
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    resource = Resource.create({**named, "service.instance.id": instance, "service.version": mesh.__version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


async def shut_down(provider: TracerProvider) -> None:
    """Send the waiting spans within LAST_S; after that the thread is abandoned."""
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop has closed already
            loop.call_soon_threadsafe(is_over.set)

    threading.Thread(target=work, name="mesh-last-spans", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_S):
            await is_over.wait()
