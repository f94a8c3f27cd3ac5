"""Command lines and the restart policy of worker processes."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.cli.option_values import EngineChoice
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.terminal import failure
from mesh.errors import ConfigError, EngineDeadError
from mesh.hosting.supervisor import Member, Restart, describe
from mesh.policies.restart import Backoff

QUIET = MonitoringOptions(log_level="warning")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The settings of one worker process."""

    url: str
    choice: EngineChoice
    name: str
    namespace: str = "mesh"
    grace_s: float = 30.0
    watching: MonitoringOptions = QUIET

    def argv(self, member: Member) -> Sequence[str]:
        """The command line of the process in this place."""
        choice, watching = self.choice, self.watching
        port = watching.telemetry_port
        given: list[tuple[str, object]] = [
            ("--nats", self.url),
            ("--engine", choice.engine),
            ("--model", choice.model),
            ("--name", self.name),
            ("--max-model-len", choice.max_model_len),
            ("--capacity", choice.capacity),
            ("--namespace", self.namespace),
            ("--grace", self.grace_s),
            ("--log-level", watching.log_level),
            ("--log-format", watching.log_format),
            ("--telemetry-port", port + member.number if port else port),
            ("--telemetry-host", watching.telemetry_host),
            ("--otlp", watching.otlp),
            *(("--engine-arg", pair) for pair in choice.engine_arg),
        ]
        options = [text for key, value in given if value is not None for text in (key, str(value))]
        return [sys.executable, "-m", "mesh", "worker", "--leash", *options]


def restart_with_backoff(report: Callable[[str], None]) -> Restart:
    """Returns a policy that restarts dead workers after growing pauses, but not drained or misconfigured ones.

    The returned function raises ConfigError where a worker cannot start, EngineDeadError where it died too often.
    """
    backoffs: dict[int, Backoff] = {}

    def restart(member: Member, code: int) -> float | None:
        if (
            code == failure.OK
        ):  # `mesh drain`, or a SIGTERM of its own. NATS stays, and with it what waits in the queue.
            report(f"worker {member.number} was drained; it is not restarted")
            return None
        if code in (failure.USAGE, failure.CONFIG):
            raise ConfigError(f"worker {member.number} cannot start; see the line above")
        backoff = backoffs.setdefault(member.number, Backoff())
        pause_s = backoff.died(member.lived_s)
        if pause_s is None:
            raise EngineDeadError(
                f"worker {member.number} died {backoff.quick} times in a row ({describe(code)}), giving up"
            )
        report(f"worker {member.number} died ({describe(code)}); starting it again in {pause_s:g} s")
        return pause_s

    return restart
