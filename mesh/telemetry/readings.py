"""The values that a scrape reads from a process and its mesh. Pure.

control/status/mesh_exporter and the command line fill them; telemetry/collectors turns them into metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueReading:
    """The queue of one model and tier."""

    model: str
    tier: str
    waiting: int  # jobs never delivered to a worker
    in_flight: int  # jobs delivered to a worker and not ended
    redelivered: int  # jobs in flight that were delivered more than once
    pulls: int  # open pulls of workers with free slots
    is_paused: bool
    oldest_s: float | None  # age of the oldest job, waiting or running; None: there is none
    oldest_waiting_s: float | None  # age of the oldest waiting job; None: there is none


@dataclass(frozen=True, slots=True)
class StoreReading:
    """One stream or bucket."""

    name: str
    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MeshReading:
    """A whole mesh, polled by the one process that holds the exporter's lease."""

    unix_s: float  # time of the poll, by the server's clock
    queues: Sequence[QueueReading]
    stores: Sequence[StoreReading]
    workers: Sequence[tuple[str, str, int]]  # model, state, number of workers
    dead_letters: int
    unserved_jobs: int  # jobs for models without a queue


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """The worker of this process."""

    model: str
    is_ready: bool
    is_connected: bool
    running: int
    capacity: int
    free: int  # credits: slots neither used nor reserved for an open pull
    open_pulls: int


@dataclass(frozen=True, slots=True)
class EngineReading:
    """The own figures of this process's engine. None: the engine does not report this figure."""

    engine: str
    model: str
    running: int  # requests in its batch
    waiting: int
    kv_cache_ratio: float | None  # share of its KV cache in use, 0 to 1
    prefix_queried_tokens: int | None  # prompt tokens looked up in the prefix cache since the start
    prefix_hit_tokens: int | None  # of these, tokens found
    preemptions: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU that this process may use."""

    gpu: str  # its index on this machine
    name: str
    busy_ratio: float | None  # share of the last sample period in which a kernel ran, 0 to 1
    used_bytes: int
    total_bytes: int
