"""Whether the cost of a job stays what it is as a mesh grows. Called by `python -m tests.bench scale`.

Each part has meshes of its own, and measures the large and the small in turn: many queued jobs, many streams of one
client, many tenants, many workers; and what memory they take.
"""

import sys
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from tests.bench.report import Report
from tests.bench.scale_many import TenantSizes, WorkerSizes, measure_tenants, measure_workers
from tests.bench.scale_memory import measure_memory
from tests.bench.scale_mesh import LARGE, SMALL
from tests.bench.scale_queue import QueueSizes, measure_queue
from tests.bench.scale_streams import StreamSizes, measure_streams

PARTS = ("memory", "queue", "streams", "tenants", "workers")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the large side is, and how much is done."""

    queue: QueueSizes = field(default_factory=QueueSizes)
    streams: StreamSizes = field(default_factory=StreamSizes)
    tenants: TenantSizes = field(default_factory=TenantSizes)
    workers: WorkerSizes = field(default_factory=WorkerSizes)
    idle_s: float = 8.0  # after which an idle process is looked at


TINY = Sizes(
    queue=QueueSizes(deep=150, edge=50, shallow=20, drained=40, unary=16, at_once=4, swept_s=0.5, watch_s=0.5),
    streams=StreamSizes(
        many=40, few=10, slow_ms=200, workers=2, window_s=0.5, spread_s=0.2, slack_s=1.0, quiet_few=10, quiet_s=0.5
    ),
    tenants=TenantSizes(tenants=5, unary=16, at_once=4),
    workers=WorkerSizes(workers=2, rate=40, block_s=0.5, idle_s=0.5, settle_s=0.5),
    idle_s=0.5,
)


async def measure(rounds: int, sizes: Sizes | None = None, only: Collection[str] = PARTS) -> Report:
    """Every part in turn, `rounds` times."""
    sizes = sizes or Sizes()
    report = Report("scale", [LARGE, SMALL])
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "memory": lambda: measure_memory(report, sizes.idle_s),
        "queue": lambda: measure_queue(report, sizes.queue),
        "streams": lambda: measure_streams(report, sizes.streams),
        "tenants": lambda: measure_tenants(report, sizes.tenants),
        "workers": lambda: measure_workers(report, sizes.workers),
    }
    for number in range(rounds):
        for name in PARTS:
            if name in only:
                began_s = time.monotonic()
                await parts[name]()
                print(f"{name} took {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return report
