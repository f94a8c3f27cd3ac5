"""Counts the events of a process for Prometheus. An Observer (see mesh/signals); `page` returns the scraped page.

Each name begins with `mesh_`, and times are in seconds. Every label has a bounded number of values: a client can invent
tenants, so all but the first ones are counted together. Needs prometheus_client (the extra `metrics`).
"""

from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

import mesh
from mesh.signals import (
    AttemptStarted,
    ConnectionChanged,
    EngineDied,
    EngineEnded,
    JobBuried,
    JobDelivered,
    JobEnded,
    JobEndedUnrun,
    JobReturned,
    RequestAccepted,
    RequestDenied,
    RequestRefused,
    Signal,
)
from mesh.telemetry.shapes import (
    FIRST_TOKEN_S,
    JOB_TOKENS,
    LONG_S,
    MOST_CODES,
    MOST_MODELS,
    MOST_TENANTS,
    TOKEN_S,
    BoundedLabel,
    per_token_s,
)

MEDIA_TYPE = CONTENT_TYPE_LATEST
_QUEUE = ("model", "tier")
_VLLM = "vllm:"  # prefix of vLLM's own metrics


class Metrics:
    """The metrics of one process, in their own registry."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        """Create the metrics. `collectors` are read on each scrape (see telemetry/collectors)."""
        self._registry = registry = CollectorRegistry()
        self._tenant, self._code, self._model = (
            BoundedLabel(MOST_TENANTS),
            BoundedLabel(MOST_CODES),
            BoundedLabel(MOST_MODELS),
        )
        self._jobs = _JobMetrics(registry)
        self._spans = _SpanMetrics(registry)
        Gauge(
            "mesh_build_info", "The version of mesh in this process; always 1.", ["version"], registry=registry
        ).labels(mesh.__version__).set(1)
        self._connection_losses = Counter(
            "mesh_nats_connection_losses_total", "Losses of the connection to NATS.", registry=registry
        )
        self._engine_deaths = Counter(
            "mesh_engine_deaths_total", "Engines that died or hung, and were replaced.", registry=registry
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        for each in collectors:
            registry.register(each)

    def observe(self, signal: Signal) -> None:
        """Count one signal."""
        jobs, times = self._jobs, self._spans
        match signal:
            case JobDelivered(model=model, tier=tier, delivered=delivered):
                jobs.deliveries.labels(model, tier, "first" if delivered == 1 else "again").inc()
                if delivered == 1:
                    times.queue.labels(model, tier).observe(signal.queued_ms / 1000)
            case AttemptStarted(model=model, tier=tier):
                jobs.attempts.labels(model, tier).inc()
                if signal.cause is not None:
                    jobs.takeovers.labels(model, tier, signal.cause).inc()
            case EngineEnded():
                self._engine_ended(signal)
            case JobEnded():
                self._job_ended(signal)
            case JobEndedUnrun():
                of = (self._model(signal.model), signal.tier, signal.status)
                jobs.ended.labels(*of, self._code(signal.code)).inc()
                times.total.labels(*of).observe(signal.total_ms / 1000)
            case RequestAccepted(model=model, tier=tier):
                jobs.accepted.labels(self._model(model), tier).inc()
            case RequestDenied(code=code):
                jobs.denied.labels(self._code(code)).inc()
            case JobReturned(model=model, tier=tier, reason=reason):
                jobs.returned.labels(model, tier, reason).inc()
            case JobBuried(model=model, tier=tier, code=code):
                jobs.buried.labels(model, tier, self._code(code)).inc()
            case RequestRefused(model=model, tier=tier, code=code):
                jobs.refused.labels(model, tier, self._code(code)).inc()
            case EngineDied():
                self._engine_deaths.inc()
            case ConnectionChanged(connected=False):
                self._connection_losses.inc()
            case _:
                pass

    def page(self) -> bytes:
        """Return all metrics in Prometheus's text format, and vLLM's own where this process has them."""
        return generate_latest(_Page(self._registry))

    def _engine_ended(self, signal: EngineEnded) -> None:
        times, model, tier = self._spans, signal.model, signal.tier
        times.engine.labels(model, tier, "finished" if signal.is_finished else "stopped").observe(signal.seconds)
        if signal.first_token_s is not None and signal.operation != "embeddings":
            times.engine_first_token.labels(model, tier).observe(signal.first_token_s)
        token_s = per_token_s(signal.seconds, signal.first_token_s, signal.tokens)
        if token_s is not None and signal.is_finished:
            times.output_token.labels(model, tier).observe(token_s)

    def _job_ended(self, signal: JobEnded) -> None:
        jobs, times, model, tier = self._jobs, self._spans, signal.model, signal.tier
        jobs.ended.labels(model, tier, signal.status, self._code(signal.code or "")).inc()
        times.total.labels(model, tier, signal.status).observe(signal.total_ms / 1000)
        if signal.first_token_ms is not None:
            times.first_token.labels(model, tier).observe(signal.first_token_ms / 1000)
        tenant = self._tenant(signal.tenant)
        jobs.prompt_tokens.labels(model, tenant).inc(signal.prompt_tokens)
        jobs.cached_tokens.labels(model, tenant).inc(signal.cached_tokens)
        jobs.output_tokens.labels(model, tenant).inc(signal.tokens)
        if signal.status == "finished":
            jobs.prompt_size.labels(model).observe(signal.prompt_tokens)
            jobs.output_size.labels(model).observe(signal.tokens)


class _JobMetrics:
    """Counts of jobs and their tokens."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def tokens(name: str, text: str) -> Histogram:
            return Histogram(name, text, ["model"], registry=registry, buckets=JOB_TOKENS)

        self.deliveries = counter(
            "mesh_deliveries_total", "Deliveries of jobs to this worker, first or repeated.", *_QUEUE, "delivery"
        )
        self.attempts = counter("mesh_attempts_total", "Attempts that began.", *_QUEUE)
        self.takeovers = counter(
            "mesh_takeovers_total",
            "Attempts after an earlier one, by the reason that one did not end the job.",
            *_QUEUE,
            "cause",
        )
        self.ended = counter(
            "mesh_jobs_total",
            "Jobs whose Result this process stored, by status and error code.",
            *_QUEUE,
            "status",
            "code",
        )
        self.accepted = counter("mesh_frontdoor_accepted_total", "Requests that the gateway accepted as jobs.", *_QUEUE)
        self.denied = counter("mesh_frontdoor_refused_total", "Requests that the gateway refused.", "code")
        self.returned = counter(
            "mesh_jobs_returned_total", "Jobs that this worker returned without a Result.", *_QUEUE, "reason"
        )
        self.refused = counter(
            "mesh_requests_refused_total", "Messages in the queue that were not valid requests.", *_QUEUE, "code"
        )
        self.buried = counter("mesh_jobs_buried_total", "Jobs moved to the dead letters.", *_QUEUE, "code")
        by_tenant = ("model", "tenant")
        self.prompt_tokens = counter("mesh_prompt_tokens_total", "Prompt tokens of ended jobs.", *by_tenant)
        self.cached_tokens = counter(
            "mesh_cached_tokens_total", "Prompt tokens of ended jobs found in the prefix cache.", *by_tenant
        )
        self.output_tokens = counter("mesh_output_tokens_total", "Output tokens of ended jobs.", *by_tenant)
        self.prompt_size = tokens("mesh_job_prompt_tokens", "Prompt tokens of one finished job.")
        self.output_size = tokens("mesh_job_output_tokens", "Output tokens of one finished job.")


class _SpanMetrics:
    """Durations of the parts of a job."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def seconds(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, (*_QUEUE, *labels), registry=registry, buckets=bounds)

        self.queue = seconds("mesh_queue_seconds", "Time from the submit to the first delivery.", LONG_S)
        self.engine = seconds(
            "mesh_engine_seconds", "Time of one attempt in the engine, finished or stopped.", LONG_S, "outcome"
        )
        self.first_token = seconds(
            "mesh_first_token_seconds", "Time from the submit to the first token, queue included.", FIRST_TOKEN_S
        )
        self.engine_first_token = seconds(
            "mesh_engine_first_token_seconds", "Time from the engine call to its first token.", FIRST_TOKEN_S
        )
        self.output_token = seconds(
            "mesh_output_token_seconds",
            "Time per output token after the first; one value for each finished attempt.",
            TOKEN_S,
        )
        self.total = seconds("mesh_job_seconds", "Time from the submit to the Result.", LONG_S, "status")


class _Page(CollectorRegistry):
    """Filters a registry: leaves out the creation time of every series, which would double their number."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(auto_describe=False)
        self._shown = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._shown.collect():
            yield _without_creation(family)
        for family in REGISTRY.collect():
            if family.name.startswith(_VLLM):
                yield _without_creation(family)


def _without_creation(family: Metric) -> Metric:
    family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return family
