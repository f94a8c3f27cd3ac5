"""What is read of a process and of its mesh when somebody scrapes it, as plain values. Pure.

Filled by control/status/mesh_exporter and by the command line, shown by telemetry/collectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueReading:
    """The queue of one model and tier."""

    model: str
    tier: str
    waiting: int  # jobs never given to a worker
    in_flight: int  # given to a worker and not ended
    redelivered: int  # of those in flight, given more than once
    pulls: int  # free slots that workers ask for jobs with
    is_paused: bool
    oldest_s: float | None  # age of the oldest job; None: there is none
    oldest_waiting_s: float | None  # the same among those that wait


@dataclass(frozen=True, slots=True)
class StoreReading:
    """One stream or bucket."""

    name: str
    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MeshReading:
    """A whole mesh, polled by the one process of it that holds the lease for that."""

    unix_s: float  # the server's clock
    queues: Sequence[QueueReading]
    stores: Sequence[StoreReading]
    workers: Sequence[tuple[str, str, int]]  # model, state, and how many of it
    dead_letters: int
    unserved_jobs: int  # for models that nobody deployed


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """The worker of this process."""

    model: str
    is_ready: bool
    is_connected: bool
    running: int
    capacity: int
    free: int  # credits: slots neither taken nor promised to a pull
    open_pulls: int


@dataclass(frozen=True, slots=True)
class EngineReading:
    """The engine of this process, as it counts itself. None: it does not say."""

    engine: str
    model: str
    running: int  # requests in its batch
    waiting: int
    kv_cache_ratio: float | None  # of its cache in use, 0 to 1
    prefix_queried_tokens: int | None  # of prompts, looked for in the cache since it started
    prefix_hit_tokens: int | None  # of these, found
    preemptions: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU that this process may use."""

    gpu: str  # its index on this machine
    name: str
    busy_ratio: float | None  # of the last moment in which a kernel ran, 0 to 1
    used_bytes: int
    total_bytes: int
