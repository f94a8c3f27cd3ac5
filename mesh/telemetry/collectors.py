"""What is read only when somebody scrapes: the worker, its engine, the GPUs, and the mesh where this process polls it.

A reading that is not there leaves its metrics out; nothing is shown that is not known. Used by telemetry/metrics.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Collector

from mesh.signals import CHUNK_TOKENS, GAP_S, Tally
from mesh.telemetry.readings import EngineReading, GpuReading, MeshReading, WorkerReading
from mesh.telemetry.shapes import cumulative

_QUEUE = ("model", "tier")


class WorkerCollector(Collector):
    """The worker of this process, and what it tallies."""

    def __init__(self, model: str, read: Callable[[], WorkerReading | None], tally: Tally) -> None:
        self._model = model
        self._read = read
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        if reading is not None:
            yield from _worker_gauges(reading)
        yield from self._tallied()

    def _tallied(self) -> Iterator[Metric]:
        tally, labels = self._tally, [self._model]
        events = HistogramMetricFamily(
            "mesh_event_tokens",
            "Output tokens in one event of the journal; their count is the publishes.",
            labels=["model"],
        )
        events.add_metric(labels, cumulative(tally.events_by_tokens, CHUNK_TOKENS), float(tally.event_tokens))
        yield events
        gaps = HistogramMetricFamily(
            "mesh_between_outputs_seconds", "Between two outputs of the engine for one job.", labels=["model"]
        )
        gaps.add_metric(labels, cumulative(tally.gaps, GAP_S), tally.gaps_s)
        yield gaps
        renewals = CounterMetricFamily(
            "mesh_lease_renewals",
            "Renewals of the leases of running jobs, by their answer.",
            labels=["model", "outcome"],
        )
        renewals.add_metric([self._model, "confirmed"], tally.renewals)
        renewals.add_metric([self._model, "failed"], tally.refused_renewals)
        yield renewals


class EngineCollector(Collector):
    """The engine of this process, as it counts itself."""

    def __init__(self, read: Callable[[], EngineReading | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        if reading is None:
            return
        names, values = ("engine", "model"), [reading.engine, reading.model]
        gauges: list[tuple[str, str, float | None]] = [
            ("mesh_engine_running_requests", "Requests in the engine's batch.", reading.running),
            ("mesh_engine_waiting_requests", "Requests that wait in the engine.", reading.waiting),
            ("mesh_engine_kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1.", reading.kv_cache_ratio),
        ]
        counters = [
            (
                "mesh_engine_prefix_cache_queried_tokens",
                "Prompt tokens looked for in the prefix cache.",
                reading.prefix_queried_tokens,
            ),
            ("mesh_engine_prefix_cache_hit_tokens", "Of these, found there.", reading.prefix_hit_tokens),
            ("mesh_engine_preemptions", "Requests put back to wait for want of KV cache.", reading.preemptions),
        ]
        for name, text, value in gauges:
            if value is not None:
                yield _gauge(name, text, names, [(values, value)])
        for name, text, count in counters:
            if count is not None:
                family = CounterMetricFamily(name, text, labels=names)
                family.add_metric(values, count)
                yield family


class MeshCollector(Collector):
    """The queues of the whole mesh, and what it keeps."""

    def __init__(self, read: Callable[[], MeshReading | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        if reading is None:
            return
        queues = reading.queues

        def of_queues(name: str, text: str, value: Callable[[int], float | None]) -> Metric:
            found = [([q.model, q.tier], known) for n, q in enumerate(queues) if (known := value(n)) is not None]
            return _gauge(name, text, _QUEUE, found)

        yield of_queues("mesh_queue_waiting_jobs", "Jobs never given to a worker.", lambda n: queues[n].waiting)
        yield of_queues(
            "mesh_queue_in_flight_jobs", "Jobs given to a worker and not ended.", lambda n: queues[n].in_flight
        )
        yield of_queues(
            "mesh_queue_redelivered_jobs", "Of those in flight, given more than once.", lambda n: queues[n].redelivered
        )
        yield of_queues(
            "mesh_queue_oldest_waiting_seconds",
            "Age of the oldest job that waits; 0 where none does.",
            lambda n: queues[n].oldest_waiting_s or 0.0,
        )
        yield of_queues(
            "mesh_queue_oldest_seconds",
            "Age of the oldest job, running ones included; 0 where there is none.",
            lambda n: queues[n].oldest_s or 0.0,
        )
        yield of_queues(
            "mesh_queue_open_pulls", "Free slots that workers ask for jobs with.", lambda n: queues[n].pulls
        )
        yield of_queues("mesh_queue_paused", "1 while the queue is paused.", lambda n: queues[n].is_paused)
        yield _gauge("mesh_dead_letters", "Dead letters that are kept.", (), [([], reading.dead_letters)])
        yield _gauge("mesh_unserved_jobs", "Jobs for models that nobody deployed.", (), [([], reading.unserved_jobs)])
        stores = reading.stores
        by_store = ("store",)
        yield _gauge(
            "mesh_store_messages",
            "Messages in a stream or bucket.",
            by_store,
            [([each.name], each.messages) for each in stores],
        )
        yield _gauge(
            "mesh_store_bytes",
            "Bytes in a stream or bucket.",
            by_store,
            [([each.name], each.size_bytes) for each in stores],
        )
        yield _gauge(
            "mesh_workers",
            "Workers that said lately that they are there.",
            ("model", "state"),
            [([model, state], count) for model, state, count in reading.workers],
        )
        yield _gauge("mesh_polled_timestamp_seconds", "When all this was read: Unix time.", (), [([], reading.unix_s)])


class GpuCollector(Collector):
    """The GPUs that this process may use, as they were read last."""

    def __init__(self, read: Callable[[], Sequence[GpuReading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        found = self._read()
        if not found:
            return
        names = ("gpu", "name")
        busy = [([each.gpu, each.name], each.busy_ratio) for each in found if each.busy_ratio is not None]
        used = [([each.gpu, each.name], each.used_bytes) for each in found]
        total = [([each.gpu, each.name], each.total_bytes) for each in found]
        yield _gauge("mesh_gpu_busy_ratio", "Share of the last moment in which a kernel ran, 0 to 1.", names, busy)
        yield _gauge("mesh_gpu_memory_used_bytes", "Memory in use, by whomever.", names, used)
        yield _gauge("mesh_gpu_memory_total_bytes", "Memory there is.", names, total)


def _worker_gauges(reading: WorkerReading) -> Iterator[Metric]:
    for name, text, value in (
        ("mesh_worker_ready", "1 while the worker is ready, as /readyz says.", reading.is_ready),
        ("mesh_nats_connected", "1 while there is a connection to NATS.", reading.is_connected),
        ("mesh_worker_running_jobs", "Jobs that hold a slot here.", reading.running),
        ("mesh_worker_capacity_jobs", "Slots there are.", reading.capacity),
        ("mesh_worker_free_credits", "Slots neither taken nor promised to a pull.", reading.free),
        ("mesh_worker_open_pulls", "Pulls that NATS has not answered.", reading.open_pulls),
    ):
        yield _gauge(name, text, ("model",), [([reading.model], value)])


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Sequence[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for each, value in values:
        family.add_metric(each, float(value))
    return family
