"""The trace of each job in the worker that runs it. An Observer (see mesh/signals).

    chat demo                      the client: the whole job            (mesh/telemetry/client_tracing)
      send demo                    the client: its request is stored
        queue demo                 the wait until the first delivery
        process demo               an attempt; after a takeover another one, with the previous worker and the cause
          chat demo                the attempt's time in the engine
          end demo                 the Result is stored, announced, acknowledged

Needs OpenTelemetry (the extra `tracing`).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from mesh.clock import SYSTEM
from mesh.job_key import JobKey
from mesh.signals import (
    AttemptStarted,
    EngineEnded,
    JobBuried,
    JobDelivered,
    JobEnded,
    JobReturned,
    RequestRefused,
    Signal,
)
from mesh.telemetry import spans
from mesh.telemetry.client_tracing import context_of

MOST_JOBS = 10_000  # tracked at once; one more drops the oldest, whose end was never signalled


@dataclass(slots=True)
class _Job:
    """A job of this worker, and its open span."""

    parent: Context | None  # the submitter's span, or this worker's queue span where it sent none
    delivered_ns: int
    attempt: Span | None = None
    runs: list[tuple[EngineEnded, int]] = field(default_factory=list)  # runs in the engine, with the end of each in ns


class WorkerTracing:
    """Makes the spans of one worker's jobs."""

    def __init__(self, tracer: Tracer, worker: str, now_ns: Callable[[], int] = SYSTEM.wall_ns) -> None:
        self._tracer = tracer
        self._worker = worker
        self._now_ns = now_ns
        self._jobs: OrderedDict[JobKey, _Job] = OrderedDict()

    def observe(self, signal: Signal) -> None:
        """Add a signal to the trace of its job."""
        match signal:
            case JobDelivered():
                self._delivered(signal)
            case AttemptStarted() if (known := self._known(signal)) is not None:
                self._end_attempt(signal, known, None)
                known.attempt = self._attempt(signal, known)
                known.attempt.set_attributes(spans.of_attempt(signal, self._worker))
            case EngineEnded() if (known := self._known(signal)) is not None:
                known.runs.append((signal, self._now_ns()))
            case JobBuried() if (known := self._known(signal)) is not None:
                if known.attempt is not None:
                    known.attempt.add_event("dead letter", {"error.type": signal.code})
            case RequestRefused() if (known := self._known(signal)) is not None:
                known.attempt = known.attempt or self._attempt(signal, known)
            case JobEnded() if (known := self._jobs.pop(signal.key, None)) is not None:
                self._ended(signal, known)
            case JobReturned() if (known := self._jobs.pop(signal.key, None)) is not None:
                if known.attempt is not None:
                    known.attempt.set_attribute("mesh.returned", signal.reason)
                self._end_attempt(signal, known, signal.reason if signal.reason in ("lost", "retry") else None)
            case _:
                pass

    def close(self) -> None:
        """End the open spans: the worker has ended."""
        while self._jobs:
            _, known = self._jobs.popitem()
            if known.attempt is not None:
                known.attempt.set_status(Status(StatusCode.ERROR, "the worker ended"))
                known.attempt.end()

    def _known(self, signal: AttemptStarted | EngineEnded | JobBuried | RequestRefused) -> _Job | None:
        return self._jobs.get(signal.key)

    def _delivered(self, signal: JobDelivered) -> None:
        key, now_ns = signal.key, self._now_ns()
        if key in self._jobs:  # JetStream delivered a job again that this worker still has
            return
        while len(self._jobs) >= MOST_JOBS:
            self._jobs.popitem(last=False)
        known = self._jobs[key] = _Job(context_of(signal.traceparent) or Context(), now_ns)
        if signal.delivered == 1:
            attributes = spans.of_message("receive", signal.job, signal.tenant, signal.model)
            start_ns = now_ns - signal.queued_ms * 1_000_000
            span = self._span(f"queue {signal.model}", known.parent, SpanKind.INTERNAL, attributes, start_ns)
            span.set_attributes(spans.of_job(signal.job, signal.tier, signal.tenant))
            span.end(now_ns)
            if not signal.traceparent:  # all later spans of the job join this trace
                known.parent = set_span_in_context(span, Context())

    def _attempt(self, signal: AttemptStarted | JobEnded | RequestRefused, known: _Job) -> Span:
        attributes = spans.of_message("process", signal.job, signal.tenant, signal.model)
        attributes |= spans.of_job(signal.job, signal.tier, signal.tenant)
        return self._span(f"process {signal.model}", known.parent, SpanKind.CONSUMER, attributes, known.delivered_ns)

    def _ended(self, signal: JobEnded, known: _Job) -> None:
        known.attempt = known.attempt or self._attempt(signal, known)
        known.attempt.set_attributes(spans.of_end(signal))
        inside = set_span_in_context(known.attempt, Context())
        since_ns = known.runs[-1][1] if known.runs else known.delivered_ns
        ending = self._span(f"end {signal.model}", inside, SpanKind.INTERNAL, {}, since_ns)
        ending.end(self._now_ns())
        self._end_attempt(signal, known, signal.code or signal.status if signal.status != "finished" else None)

    def _end_attempt(self, signal: Signal, known: _Job, error: str | None) -> None:
        """End the open attempt, if there is one, with its runs in the engine."""
        span, known.attempt = known.attempt, None
        if span is None:
            return
        inside = set_span_in_context(span, Context())
        for run, ended_ns in known.runs:
            start_ns = ended_ns - int(run.seconds * 1e9)
            name = f"{run.operation} {run.model}"
            part = self._span(name, inside, SpanKind.INTERNAL, spans.of_engine(run), start_ns)
            if not run.is_finished:
                part.set_status(Status(StatusCode.ERROR, run.outcome))
            part.end(ended_ns)
        known.runs.clear()
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(self._now_ns())

    def _span(
        self, name: str, parent: Context | None, kind: SpanKind, attributes: spans.Attributes, start_ns: int
    ) -> Span:
        return self._tracer.start_span(name, parent, kind, attributes, start_time=start_ns)
