"""The words in which a rule says that it was broken. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the rules tolerate, and what they know of the run."""

    # An ack by another connection than the one that stored the Result may be heard this much too early: two
    # publishers, two ways to the watcher. 0 where there is one server, and both go through one process.
    order_slack_s: float = 0.0
    stop_s: float = 1.0  # from a worker being told to stop a job to its last publish
    settle_s: float = 1.0  # after a fault, before its victim counts as undisturbed
    waste: float = 0.15  # tokens made in vain, as a share of those that counted
    drain_s: float = 60.0  # from the last fault's end to an empty queue


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule, the job that broke it (empty: the run as a whole), and how."""

    rule: str
    job: str
    what: str
    story: tuple[str, ...] = field(default=(), repr=False)  # the job's history, for whoever must find out why

    def lines(self) -> list[str]:
        """For a person."""
        return [f"{self.rule}: {self.what}", *self.story]
