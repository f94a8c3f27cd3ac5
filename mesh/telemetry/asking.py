"""The trace of one request in the program that asks: from the submit to the Result. Begun by client/job for each.

Costs nothing where nobody traces: OpenTelemetry is not imported here, and where the program did not import it either
there is nothing to do. Whatever it set up (a provider, a span that is open now) is what these spans belong to.
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


class Asking:
    """The spans of one request: the whole job, and in it the submit. Made by `begin`."""

    def __init__(self, whole: "Span", send: "Span", traceparent: str) -> None:
        self._whole = whole
        self._send = send
        self._is_stored = self._is_over = False
        self.traceparent = traceparent  # what travels with the request

    def stored(self) -> None:
        """The request is in the queue."""
        if not self._is_stored:
            self._is_stored = True
            self._send.end()

    def ended(self, result: Result) -> None:
        """The Result is here."""
        if not self._is_over:
            self._whole.set_attributes(spans.of_result(result))
            if result.status != "finished":
                self._fail(self._whole, result.status)
            self._end()

    def failed(self, error: MeshError) -> None:
        """There will be none here."""
        if not self._is_over:
            self._whole.set_attribute("error.type", error.code)
            self._fail(self._whole, type(error).__name__)
            self._end()

    def closed(self) -> None:
        """Nobody waits for it any more; the job goes on, if it was stored."""
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


def begin(request: Request, model: str, tier: str, tenant: str, traceparent: str) -> Asking | None:
    """Begin the trace of a request, or go on with the one of `traceparent`; None: nobody traces here."""
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
    return Asking(whole, send, traceparent_of(send))


def context_of(traceparent: str) -> "Context | None":
    """The remote span that a `traceparent` names; None: it names none, and what is open here counts."""
    if not traceparent:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
    return context if get_current_span(context).get_span_context().is_valid else None


def traceparent_of(span: "Span") -> str:
    """A span as W3C's `traceparent` names it."""
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent", "")
