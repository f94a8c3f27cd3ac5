"""Whether a job that failed is tried again, when, and in what company. Pure.

When a worker dies, nobody can tell which of its jobs killed it. So a death in company says little: however often
it happens, it counts once. A job that lost two workers without getting any further is a suspect, and runs alone
from then on: what dies alone is at fault, and what is innocent gets through. Where two attempts or more are allowed,
no job is buried for its company.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.errors import ConfigError
from mesh.protocol.history import Trial

SUSPECT_DEATHS = 2  # one may be chance; that the same job meets a second one is rare unless it is the cause


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How much patience one job gets.

    Only attempts that brought the job no further are trials: a job that was moved between workers and grew each
    time is not at fault, and ends because it grows.
    """

    max_attempts: int = 3  # trials that speak against the job before it is buried
    backoff_s: float = 0.2  # before the second attempt, after a failure the worker survived
    backoff_factor: float = 2.0
    max_backoff_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts = {self.max_attempts} must be 1 or more", key="max-attempts")

    def is_exhausted(self, trials: Sequence[Trial]) -> bool:
        """Whether these trials in a row are enough."""
        certain = sum(1 for trial in trials if trial.verdict == "failed" or trial.isolated)
        in_company = any(trial.verdict == "died" and not trial.isolated for trial in trials)
        return certain + in_company >= self.max_attempts

    def unproven(self, trials: Sequence[Trial]) -> list[Trial]:
        """What must be proven before the job may be given up: deaths that convict it, and that nobody reported.

        A worker that is suspended or cut off leaves no word either, and its job is innocent. None where the job is
        not to be given up anyway.
        """
        if not self.is_exhausted(trials):
            return []
        return [trial for trial in trials if trial.isolated and trial.verdict == "died" and not trial.is_noted]

    def is_suspect(self, trials: Sequence[Trial]) -> bool:
        """Whether the job is to run alone."""
        return sum(1 for trial in trials if trial.verdict == "died") >= SUSPECT_DEATHS

    def delay_s(self, trials: int) -> float:
        """Seconds to wait before the next attempt."""
        return min(self.max_backoff_s, self.backoff_s * self.backoff_factor ** max(0, trials - 1))
