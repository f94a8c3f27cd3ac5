"""What happens in a process, counted for Prometheus. An Observer (see mesh/signals); `page` is what is scraped.

Each name begins with `mesh_`, times are in seconds, and no label can take more than a few values: a client can invent
tenants, so all but the first are counted together. Needs prometheus_client (the extra `metrics`).
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
    Few,
    per_token_s,
)

MEDIA_TYPE = CONTENT_TYPE_LATEST
_QUEUE = ("model", "tier")
_VLLM = "vllm:"  # how the names of vLLM's own metrics begin


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        """`collectors` bring what is read only when somebody asks (see telemetry/collectors)."""
        self._registry = registry = CollectorRegistry()
        self._tenant, self._code, self._model = Few(MOST_TENANTS), Few(MOST_CODES), Few(MOST_MODELS)
        self._jobs = _JobMetrics(registry)
        self._spans = _SpanMetrics(registry)
        Gauge("mesh_build_info", "The version of mesh that runs here.", ["version"], registry=registry).labels(
            mesh.__version__
        ).set(1)
        self._connection_losses = Counter(
            "mesh_nats_connection_losses_total", "Times the connection to NATS was lost.", registry=registry
        )
        self._engine_deaths = Counter(
            "mesh_engine_deaths_total", "Times the engine died or hung, and was replaced.", registry=registry
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        for each in collectors:
            registry.register(each)

    def observe(self, signal: Signal) -> None:
        """Count it."""
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
        """All of it in Prometheus's text format, and vLLM's own metrics where this process has them."""
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
    """Of jobs and their tokens."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def tokens(name: str, text: str) -> Histogram:
            return Histogram(name, text, ["model"], registry=registry, buckets=JOB_TOKENS)

        self.deliveries = counter(
            "mesh_deliveries_total", "Jobs JetStream handed to this worker, first or again.", *_QUEUE, "delivery"
        )
        self.attempts = counter("mesh_attempts_total", "Attempts begun.", *_QUEUE)
        self.takeovers = counter(
            "mesh_takeovers_total", "Attempts that followed another, by why that one did not end.", *_QUEUE, "cause"
        )
        self.ended = counter(
            "mesh_jobs_total",
            "Jobs that got their Result from this process, by its status and error code.",
            *_QUEUE,
            "status",
            "code",
        )
        self.accepted = counter(
            "mesh_frontdoor_accepted_total", "Requests that became jobs at the front door.", *_QUEUE
        )
        self.denied = counter("mesh_frontdoor_refused_total", "Requests refused before they were jobs.", "code")
        self.returned = counter("mesh_jobs_returned_total", "Jobs given up without a Result.", *_QUEUE, "reason")
        self.refused = counter("mesh_requests_refused_total", "Bodies that were no request.", *_QUEUE, "code")
        self.buried = counter("mesh_jobs_buried_total", "Jobs given up for good: dead letters.", *_QUEUE, "code")
        by_tenant = ("model", "tenant")
        self.prompt_tokens = counter("mesh_prompt_tokens_total", "Tokens of the prompts of ended jobs.", *by_tenant)
        self.cached_tokens = counter("mesh_cached_tokens_total", "Of these, found in the prefix cache.", *by_tenant)
        self.output_tokens = counter("mesh_output_tokens_total", "Tokens of the output of ended jobs.", *by_tenant)
        self.prompt_size = tokens("mesh_job_prompt_tokens", "Tokens of a finished job's prompt.")
        self.output_size = tokens("mesh_job_output_tokens", "Tokens of a finished job's output.")


class _SpanMetrics:
    """How long things take."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def seconds(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, (*_QUEUE, *labels), registry=registry, buckets=bounds)

        self.queue = seconds("mesh_queue_seconds", "From the submit until a worker first had the job.", LONG_S)
        self.engine = seconds(
            "mesh_engine_seconds", "An attempt's time in the engine, finished or stopped.", LONG_S, "outcome"
        )
        self.first_token = seconds(
            "mesh_first_token_seconds", "From the submit to the first token, waiting included.", FIRST_TOKEN_S
        )
        self.engine_first_token = seconds(
            "mesh_engine_first_token_seconds", "From the call of the engine to its first token.", FIRST_TOKEN_S
        )
        self.output_token = seconds(
            "mesh_output_token_seconds", "Time per output token after the first, one value a finished attempt.", TOKEN_S
        )
        self.total = seconds("mesh_job_seconds", "From the submit to the Result.", LONG_S, "status")


class _Page(CollectorRegistry):
    """What is shown of a registry: without the creation time of every series, which doubles their number."""

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
