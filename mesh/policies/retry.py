"""Whether a job that failed is tried again, and when. Pure."""

from dataclasses import dataclass

from mesh.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How much patience one job gets.

    Only attempts that brought the job no further are counted: a job that was moved between workers and grew each
    time is not at fault, and ends because it grows.
    """

    max_attempts: int = 3  # fruitless attempts in a row before the job is buried
    backoff_s: float = 0.2  # before the second attempt, after a failure the worker survived
    backoff_factor: float = 2.0
    max_backoff_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts = {self.max_attempts} must be 1 or more", key="max-attempts")

    def is_exhausted(self, fruitless: int) -> bool:
        """Whether so many fruitless attempts in a row are enough."""
        return fruitless >= self.max_attempts

    def delay_s(self, fruitless: int) -> float:
        """Seconds to wait before the next attempt."""
        return min(self.max_backoff_s, self.backoff_s * self.backoff_factor ** max(0, fruitless - 1))
