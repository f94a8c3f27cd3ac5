"""The rules for messages on the wire, harmful or not: fences, the order of actions, acks, cancels. Pure.

A missing fence does no harm until a zombie worker publishes; these rules catch it at the first publish. The watcher
misses messages while the server is away, so a rule that depends on an absent record checks `Blind` first.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from mesh.verify.soak.history import Case, Missed, Sent, Settled, Struck
from mesh.verify.soak.rules_journal import Fault
from mesh.verify.soak.violation import Bounds

FENCED = "every event is published under a fence"
CREATED = "a Result is created, never overwritten"
ACK_FOLLOWS = "an ack follows the Result"
ACK_CONFIRMED = "an ack asks for confirmation"
NO_TERM = "no well-formed job is terminated"
CANCEL_HOLDS = "a cancelled job stops, and its answer is its Result"

TERMINAL = ("finished", "failed", "cancelled", "expired")


class Blind:
    """The spans in which the watcher may have missed messages, and the workers that had a fault."""

    def __init__(self, missed: Sequence[Missed], struck: Sequence[Struck], settle_s: float) -> None:
        self._missed = missed
        self._settle_s = settle_s
        self._struck = sorted(struck, key=lambda each: each.at_s)
        self._times = [each.at_s for each in self._struck]

    def between(self, from_s: float, before_order: int) -> bool:
        """Return whether the watcher may have missed a message between `from_s` and the record `before_order`."""
        return any(each.to_s >= from_s and each.from_order < before_order for each in self._missed)

    def is_disturbed(self, worker: str, from_s: float, to_s: float) -> bool:
        """Return whether `worker` or a server had a fault between these instants, or up to `settle_s` before."""
        for each in self._struck[: bisect_left(self._times, to_s)]:
            if (each.kind == "server" or each.victim == worker) and each.until_s + self._settle_s >= from_s:
                return True
        return any(each.to_s + self._settle_s >= from_s and each.from_s <= to_s for each in self._missed)


def check_fences(case: Case) -> Iterator[Fault]:
    """Check that every publish of an event or a Result has its fence."""
    for sent in case.sent:
        if sent.to == "results" and sent.expected != 0:
            yield CREATED, f"at {sent.at_s:.3f} a Result was written {_fence(sent)}"
        if sent.expected is not None:
            continue
        if sent.to == "events" or (sent.to == "attempts" and sent.what == "started"):
            yield FENCED, f"at {sent.at_s:.3f} {sent.what} of attempt {sent.attempt} was published without one"


def check_acks(case: Case, blind: Blind, bounds: Bounds) -> Iterator[Fault]:
    """Check that every ack is confirmed and follows the Result, and that no request is terminated."""
    writes = [sent for sent in case.sent if sent.to == "results"]
    started = case.started()
    own = started[0].sequence if started else 0
    for settled in case.settled:
        when = f"at {settled.at_s:.3f} request {settled.sequence}"
        if settled.verb == "term":
            yield NO_TERM, f"{when} was terminated"
        if settled.verb not in ("ack", "remove"):
            continue
        if not settled.is_confirmed:
            yield ACK_CONFIRMED, f"{when} was acknowledged without asking for confirmation"
        if own not in (0, settled.sequence):
            continue  # a second request under the job's id; its removal loses nothing
        if any(_precedes(write, settled, bounds) for write in writes):
            continue
        if not blind.between(case.asked.at_s if case.asked is not None else 0.0, settled.order):
            yield ACK_FOLLOWS, f"{when} was acknowledged before the Result was written"


def _precedes(write: Sent, settled: Settled, bounds: Bounds) -> bool:
    """Return whether the Result was sent before the ack, within the slack between two connections."""
    if write.order < settled.order:
        return True
    is_other = not write.sender or write.sender != settled.sender
    return is_other and bounds.order_slack_s > 0 and write.at_s <= settled.at_s + bounds.order_slack_s


def check_cancels(case: Case, blind: Blind, bounds: Bounds) -> Iterator[Fault]:
    """Check that the answer to a cancel is the Result's status, and that the work stops."""
    for each in case.cancelled:
        status = case.result.status if case.result is not None else None
        if "internal error" in each.fault:  # an injected fault must never show as an internal error
            yield CANCEL_HOLDS, f"the answer was an internal error of the mesh: {each.fault}"
        if each.answer in TERMINAL and status is not None and status != each.answer:
            yield CANCEL_HOLDS, f"the answer was {each.answer}, the Result is {status}"
        if each.answer in TERMINAL:
            yield from _later(case, each.answered_s, "was answered", blind, bounds)
    for told in case.told:
        yield from _later(case, told.at_s, "reached the workers", blind, bounds)


def _later(case: Case, since_s: float, what: str, blind: Blind, bounds: Bounds) -> Iterator[Fault]:
    """Find tokens that an undisturbed worker published too long after `since_s`."""
    began = {sent.attempt: sent for sent in case.sent if sent.what == "started"}
    for sent in case.sent:
        if sent.what != "delta" or sent.at_s <= since_s + bounds.stop_s:
            continue
        start = began.get(sent.attempt)
        if start is None or start.at_s > since_s or blind.is_disturbed(start.worker, start.at_s, sent.at_s):
            continue
        yield CANCEL_HOLDS, f"tokens were published {sent.at_s - since_s:.2f} s after the cancel {what}"
        return


def _fence(sent: Sent) -> str:
    return "without a fence" if sent.expected is None else f"expecting revision {sent.expected}"
