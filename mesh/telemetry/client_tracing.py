"""The trace of one request in the client's program, from the submit to the Result.

It costs nothing without tracing: this module does not import OpenTelemetry itself, and does nothing unless the program
did. The spans use the program's tracer provider, and its current span is their parent.
"""

import sys
from typing import TYPE_CHECKING

import mesh
from mesh.errors import MeshError
from mesh.protocol.messages import Request, Result
from mesh.telemetry import spans

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_API = "opentelemetry.trace"


class RequestTrace:
    """The spans of one request: the whole job, and its child, the submit. Created by `begin`."""

    def __init__(self, whole: "Span", send: "Span", traceparent: str) -> None:
        self._whole = whole
        self._send = send
        self._is_stored = self._is_over = False
        self.traceparent = traceparent  # sent with the request

    def stored(self) -> None:
        """End the submit: the request is in the queue."""
        if not self._is_stored:
            self._is_stored = True
            self._send.end()

    def ended(self, result: Result) -> None:
        """End the trace with the Result."""
        if not self._is_over:
            self._whole.set_attributes(spans.of_result(result))
            if result.status != "finished":
                self._fail(self._whole, result.status)
            self._end()

    def failed(self, error: MeshError) -> None:
        """End the trace with an error: this client gets no Result."""
        if not self._is_over:
            self._whole.set_attribute("error.type", error.code)
            self._fail(self._whole, type(error).__name__)
            self._end()

    def closed(self) -> None:
        """End the trace of a handle that was closed; the job continues if it was stored."""
        if not self._is_over:
            if self._is_stored:
                self._whole.set_attribute("mesh.left", True)
            else:
                self._fail(self._send, "not stored")
                self._fail(self._whole, "not stored")
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self.stored()
        self._whole.end()

    def _fail(self, span: "Span", why: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, why))


def begin(request: Request, model: str, tier: str, tenant: str, traceparent: str) -> RequestTrace | None:
    """Begin the trace of a request, or continue the one that `traceparent` names; None: the program does not trace."""
    if _API not in sys.modules:
        return None
    from opentelemetry.trace import SpanKind, get_tracer, set_span_in_context

    tracer, job = get_tracer("mesh", mesh.__version__), request.id or ""
    attributes = spans.of_request(request, job, model, tier, tenant)
    name = f"{attributes['gen_ai.operation.name']} {model}"
    whole = tracer.start_span(name, context_of(traceparent), SpanKind.CLIENT, attributes)
    if not whole.get_span_context().is_valid:
        return None
    sending = spans.of_message("send", job, tenant, model)
    send = tracer.start_span(f"send {model}", set_span_in_context(whole), SpanKind.PRODUCER, sending)
    return RequestTrace(whole, send, traceparent_of(send))


def context_of(traceparent: str) -> "Context | None":
    """Return the remote span that `traceparent` names; None: it names none, so the current span is the parent."""
    if not traceparent:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
    return context if get_current_span(context).get_span_context().is_valid else None


def traceparent_of(span: "Span") -> str:
    """Return W3C's `traceparent` of a span."""
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent", "")
