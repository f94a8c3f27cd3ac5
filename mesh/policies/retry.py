"""Decides whether a failed job is tried again, when, and whether it then runs alone. Pure.

When a worker dies, any of the jobs it ran may be the cause. So deaths beside other jobs count once, however often they
happen. A job that lost two workers without progress is a suspect and runs alone from then on. If its worker dies
again, the job is at fault; otherwise the job completes. With `max_attempts` of 2 or more, no job goes to the dead
letters because of another job.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.errors import ConfigError
from mesh.protocol.history import Trial

SUSPECT_DEATHS = 2  # one may be chance; a job rarely meets a second one unless it is the cause


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts of one job, and the pauses between them.

    Only attempts without progress count as trials. A job that moves between workers and grows each time is not at
    fault, and it ends because it grows.
    """

    max_attempts: int = 3  # trials against the job before it goes to the dead letters
    backoff_s: float = 0.2  # before the second attempt, after a failure the worker survived
    backoff_factor: float = 2.0
    max_backoff_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts = {self.max_attempts} must be 1 or more", key="max-attempts")

    def is_exhausted(self, trials: Sequence[Trial]) -> bool:
        """Return whether the job has no attempts left after these consecutive trials."""
        certain = sum(1 for trial in trials if trial.verdict == "failed" or trial.isolated)
        has_shared_death = any(trial.verdict == "died" and not trial.isolated for trial in trials)
        return certain + has_shared_death >= self.max_attempts

    def unproven(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the unreported deaths that must be confirmed before the job is given up.

        A worker that is suspended or disconnected reports nothing either, and then its job is not at fault. The list is
        empty while the job has attempts left.
        """
        if not self.is_exhausted(trials):
            return []
        return [trial for trial in trials if trial.isolated and trial.verdict == "died" and not trial.is_noted]

    def is_suspect(self, trials: Sequence[Trial]) -> bool:
        """Return whether the job must run alone."""
        return sum(1 for trial in trials if trial.verdict == "died") >= SUSPECT_DEATHS

    def delay_s(self, trials: int) -> float:
        """Return the seconds to wait before the next attempt, after `trials` trials."""
        return min(self.max_backoff_s, self.backoff_s * self.backoff_factor ** max(0, trials - 1))
