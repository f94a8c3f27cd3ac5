"""Decides whether a watched worker is alive, is to be pinged again, or is gone. Pure.

Used by `reconcile/failure_detector`. NATS reports a ping without a subscriber. One report can be an accident, so two
are needed, the patience apart. Both must come while the watcher's connection is steady and the leases are known.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["alive", "ask_again", "gone"]


@dataclass(slots=True)
class Suspicion:
    """One worker's leases, and its pings without a subscriber. All times are monotonic seconds."""

    leases: dict[str, None] = field(default_factory=dict)  # acknowledgement subjects
    is_known: bool = False  # the leases are all of the worker's
    unheard_s: float | None = None  # when the first ping since the last answer had no subscriber

    def listed(self, leases: Iterable[str]) -> None:
        """The worker answered with all its leases."""
        self.leases = dict.fromkeys(leases)
        self.is_known = True
        self.unheard_s = None

    def cleared(self) -> None:
        """The worker answered, or a ping timed out. A timeout does not prove that there is no subscriber."""
        self.unheard_s = None

    def interrupted(self) -> None:
        """The watcher's connection changed: it missed announcements, and earlier pings prove nothing."""
        self.is_known = False
        self.unheard_s = None

    def unheard(self, now_s: float, steady_from_s: float, patience_s: float) -> Verdict:
        """NATS reported a ping without a subscriber. The watcher's connection is steady from `steady_from_s`."""
        if not self.is_known or now_s < steady_from_s:
            self.unheard_s = None
            return "alive"
        if self.unheard_s is None:
            self.unheard_s = now_s
            return "ask_again"
        return "gone" if now_s - self.unheard_s >= patience_s else "ask_again"
