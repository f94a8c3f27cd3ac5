"""Whether an engine that says it is well still gets anywhere. Pure. All times are monotonic seconds.

An engine may answer every question about its health and make no token: vLLM does. So tokens are what counts, and a
job that waits for its first one behind others is no worse off than they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from mesh.errors import ConfigError

Job = TypeVar("Job")

JOB_SHARE = 2.0  # how much longer than the engine one job may take: others preempt it, or fill the cache


@dataclass(frozen=True, slots=True)
class ProgressPolicy:
    """How long no progress is tolerated."""

    stall_s: float = 120.0  # longer than the longest prefill and the slowest compile of a healthy engine

    def __post_init__(self) -> None:
        if not self.stall_s > 0:
            raise ConfigError(f"stall_timeout = {self.stall_s} must be more than 0", key="stall-timeout")

    def engine_hangs(self, running: Mapping[Job, float], now_s: float) -> bool:
        """Whether no job gets anywhere. `running`: each job in the engine, and when it last did, or began."""
        return bool(running) and now_s - max(running.values()) > self.stall_s

    def stalled(self, running: Mapping[Job, float], now_s: float) -> list[Job]:
        """The jobs that get nowhere while others do."""
        return [job for job, since_s in running.items() if now_s - since_s > self.stall_s * JOB_SHARE]

    @property
    def look_s(self) -> float:
        """How often to look."""
        return min(5.0, self.stall_s / 8)
