"""The record of a broken rule. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """The tolerances of the rules."""

    # An ack from another connection than the Result's may reach the watcher this much too early, because the two take
    # different paths. It is 0 with one server, where both go through one process.
    order_slack_s: float = 0.0
    stop_s: float = 1.0  # from the message that stops a job to its last publish
    settle_s: float = 1.0  # after a fault, before its victim counts as undisturbed
    waste: float = 0.15  # wasted tokens for each token in a Result
    drain_s: float = 60.0  # from the last fault's end to an empty queue


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule, the job that broke it (empty: the run as a whole), and a description."""

    rule: str
    job: str
    what: str
    trace: tuple[str, ...] = field(default=(), repr=False)  # the job's trace

    def lines(self) -> list[str]:
        """Return readable lines."""
        return [f"{self.rule}: {self.what}", *self.trace]
