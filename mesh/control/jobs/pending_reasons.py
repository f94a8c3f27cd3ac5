"""Explains in sentences why a job waits. Pure."""

from collections.abc import Iterator, Sequence

import msgspec

from mesh.control.jobs.job_state import JobSeen
from mesh.control.status.checks import FAR_MS
from mesh.control.status.depth import QueueDepth, WorkerSeen
from mesh.figures import many, span
from mesh.protocol.messages import TIERS


class PendingReason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a job has not ended yet."""

    code: str  # a stable word for programs
    text: str


class QueueContext(msgspec.Struct, frozen=True, kw_only=True):
    """The queues and workers around a waiting job."""

    queue: QueueDepth | None  # its own; None: unknown
    queues: Sequence[QueueDepth]  # all of its model
    workers: Sequence[WorkerSeen]  # those of its model
    ahead: int | None  # jobs of its model and tier that wait and were stored before it; None: it was delivered
    ack_wait_ms: int  # lease of a job, if its worker does not renew it


def pending_reasons(seen: JobSeen, place: QueueContext) -> list[PendingReason]:
    """Returns all reasons why a queued job does not start; none if it runs."""
    if seen.state not in ("queued", "retrying"):
        return []
    return [*_last_attempt(seen, place), *_service(seen, place), *_line(seen, place), _deadline(seen)]


def _last_attempt(seen: JobSeen, place: QueueContext) -> Iterator[PendingReason]:
    if seen.state == "retrying":
        again = "it is delivered again after a pause"
        if seen.reason.endswith("is gone"):
            again = f"another worker takes over, {place.ack_wait_ms / 1000:g} s after the last renewal at the latest"
        elif seen.reason.startswith("returned"):
            again = "it is delivered again at once"
        yield PendingReason(code="retrying", text=f"attempt {seen.attempt} is over ({seen.reason}); {again}")
    elif place.ahead is None:
        yield PendingReason(
            code="delivered", text="it was delivered to a worker that has not started it, or handed it back"
        )


def _service(seen: JobSeen, place: QueueContext) -> Iterator[PendingReason]:
    """Yields reasons on the worker side: no queue, a pause, no worker, no free slot."""
    if place.queue is None or not place.queue.is_declared:
        text = f"no queue is declared for {seen.model}/{seen.tier}: a worker of any model ends it as failed"
        yield PendingReason(code="undeclared", text=text)
        return
    left_ms = place.queue.pause_left_ms
    if left_ms:
        rest = f" for another {span(left_ms)}" if left_ms < FAR_MS else " until it is resumed"
        yield PendingReason(code="paused", text=f"{seen.model}/{seen.tier} is paused{rest}")
    ready = [each.presence for each in place.workers if each.presence.state == "ready"]
    if not place.workers:
        yield PendingReason(code="no_worker", text=f"no worker of model {seen.model} is alive")
    elif not ready:
        states = ", ".join(sorted({each.presence.state for each in place.workers}))
        yield PendingReason(code="not_ready", text=f"the workers of {seen.model} are all {states}")
    else:
        running, capacity = sum(each.running for each in ready), sum(each.capacity for each in ready)
        if running >= capacity:
            yield PendingReason(
                code="full", text=f"the workers of {seen.model} are full: {running} of {capacity} slots taken"
            )


def _line(seen: JobSeen, place: QueueContext) -> Iterator[PendingReason]:
    """Yields the jobs that come first."""
    if place.ahead is None:
        return
    before = f"{many(place.ahead, 'job')} of its model and tier {'waits' if place.ahead == 1 else 'wait'} before it"
    yield PendingReason(code="position", text=before if place.ahead else "it is the next job of its model and tier")
    if seen.tier in TIERS:
        higher = TIERS[: TIERS.index(seen.tier)]
        waiting = sum(each.waiting for each in place.queues if each.tier in higher)
        if waiting:
            yield PendingReason(
                code="tier", text=f"{many(waiting, 'job')} of higher tiers get most of the slots meanwhile"
            )


def _deadline(seen: JobSeen) -> PendingReason:
    if seen.deadline_ms <= 0:
        return PendingReason(code="deadline", text="its deadline has passed: it is about to expire")
    return PendingReason(code="deadline", text=f"it expires in {span(seen.deadline_ms)} if it has not ended by then")
