"""Metrics that are read on each scrape: the worker, its engine, the GPUs, and the mesh where this process polls it.

Without a reading its metrics are left out, so no value is ever invented.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Collector

from mesh.signals import CHUNK_TOKENS, GAP_S, Tally
from mesh.telemetry.readings import EngineReading, GpuReading, MeshReading, WorkerReading
from mesh.telemetry.shapes import cumulative

_QUEUE = ("model", "tier")


class WorkerCollector(Collector):
    """The worker of this process, and its tally."""

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
            "Output tokens in one event of the journal; the count is the number of publishes.",
            labels=["model"],
        )
        events.add_metric(labels, cumulative(tally.events_by_tokens, CHUNK_TOKENS), float(tally.event_tokens))
        yield events
        gaps = HistogramMetricFamily(
            "mesh_between_outputs_seconds", "Time between two outputs of the engine for one job.", labels=["model"]
        )
        gaps.add_metric(labels, cumulative(tally.gaps, GAP_S), tally.gaps_s)
        yield gaps
        renewals = CounterMetricFamily(
            "mesh_lease_renewals",
            "Lease renewals of running jobs, by outcome.",
            labels=["model", "outcome"],
        )
        renewals.add_metric([self._model, "confirmed"], tally.renewals)
        renewals.add_metric([self._model, "failed"], tally.refused_renewals)
        yield renewals


class EngineCollector(Collector):
    """The engine of this process, by its own figures."""

    def __init__(self, read: Callable[[], EngineReading | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        if reading is None:
            return
        names, values = ("engine", "model"), [reading.engine, reading.model]
        gauges: list[tuple[str, str, float | None]] = [
            ("mesh_engine_running_requests", "Requests in the engine's batch.", reading.running),
            ("mesh_engine_waiting_requests", "Requests that wait inside the engine.", reading.waiting),
            ("mesh_engine_kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1.", reading.kv_cache_ratio),
        ]
        counters = [
            (
                "mesh_engine_prefix_cache_queried_tokens",
                "Prompt tokens looked up in the prefix cache.",
                reading.prefix_queried_tokens,
            ),
            (
                "mesh_engine_prefix_cache_hit_tokens",
                "Prompt tokens found in the prefix cache.",
                reading.prefix_hit_tokens,
            ),
            ("mesh_engine_preemptions", "Requests preempted because the KV cache was full.", reading.preemptions),
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
    """The queues, stores and workers of the whole mesh."""

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

        yield of_queues("mesh_queue_waiting_jobs", "Jobs never delivered to a worker.", lambda n: queues[n].waiting)
        yield of_queues(
            "mesh_queue_in_flight_jobs", "Jobs delivered to a worker and not ended.", lambda n: queues[n].in_flight
        )
        yield of_queues(
            "mesh_queue_redelivered_jobs",
            "Jobs in flight that were delivered more than once.",
            lambda n: queues[n].redelivered,
        )
        yield of_queues(
            "mesh_queue_oldest_waiting_seconds",
            "Age of the oldest waiting job; 0 where no job waits.",
            lambda n: queues[n].oldest_waiting_s or 0.0,
        )
        yield of_queues(
            "mesh_queue_oldest_seconds",
            "Age of the oldest job, waiting or running; 0 where there is none.",
            lambda n: queues[n].oldest_s or 0.0,
        )
        yield of_queues("mesh_queue_open_pulls", "Open pulls of workers with free slots.", lambda n: queues[n].pulls)
        yield of_queues("mesh_queue_paused", "1 while the queue is paused.", lambda n: queues[n].is_paused)
        yield _gauge("mesh_dead_letters", "Dead letters in the store.", (), [([], reading.dead_letters)])
        yield _gauge("mesh_unserved_jobs", "Jobs for models without a queue.", (), [([], reading.unserved_jobs)])
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
            "Workers with a current presence record, by state.",
            ("model", "state"),
            [([model, state], count) for model, state, count in reading.workers],
        )
        yield _gauge(
            "mesh_polled_timestamp_seconds", "Unix time at which the mesh was polled.", (), [([], reading.unix_s)]
        )


class GpuCollector(Collector):
    """The last reading of the GPUs that this process may use."""

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
        yield _gauge(
            "mesh_gpu_busy_ratio", "Share of the last sample period in which a kernel ran, 0 to 1.", names, busy
        )
        yield _gauge("mesh_gpu_memory_used_bytes", "GPU memory in use by all processes.", names, used)
        yield _gauge("mesh_gpu_memory_total_bytes", "Total GPU memory.", names, total)


def _worker_gauges(reading: WorkerReading) -> Iterator[Metric]:
    for name, text, value in (
        ("mesh_worker_ready", "1 while /readyz reports the worker as ready.", reading.is_ready),
        ("mesh_nats_connected", "1 while the process is connected to NATS.", reading.is_connected),
        ("mesh_worker_running_jobs", "Jobs that hold a slot of this worker.", reading.running),
        ("mesh_worker_capacity_jobs", "Slots of this worker.", reading.capacity),
        ("mesh_worker_free_credits", "Slots neither used nor reserved for an open pull.", reading.free),
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
