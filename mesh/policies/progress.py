"""Detects an engine or a job that makes no progress. Pure. All times are monotonic seconds.

A hung engine can still pass its health checks; vLLM's does. So only tokens count as progress. A job that waits for its
first token behind others is not stalled while those others make progress.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from mesh.errors import ConfigError

Job = TypeVar("Job")

JOB_SHARE = 2.0  # one job may pause this much longer than the engine: others preempt it, or fill the cache


@dataclass(frozen=True, slots=True)
class ProgressPolicy:
    """The longest time without progress that is tolerated."""

    stall_s: float = 120.0  # longer than the longest prefill and the slowest compile of a healthy engine

    def __post_init__(self) -> None:
        if not self.stall_s > 0:
            raise ConfigError(f"stall_timeout = {self.stall_s} must be more than 0", key="stall-timeout")

    def engine_hangs(self, running: Mapping[Job, float], now_s: float) -> bool:
        """Return whether no job makes progress. `running`: each job in the engine → its last progress, or its start."""
        return bool(running) and now_s - max(running.values()) > self.stall_s

    def stalled(self, running: Mapping[Job, float], now_s: float) -> list[Job]:
        """Return the jobs that make no progress while others do."""
        return [job for job, since_s in running.items() if now_s - since_s > self.stall_s * JOB_SHARE]

    @property
    def look_s(self) -> float:
        """Seconds between two checks."""
        return min(5.0, self.stall_s / 8)
