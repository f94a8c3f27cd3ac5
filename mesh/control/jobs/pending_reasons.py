"""Why a job waits, in sentences. Pure. Used by control/jobs/job_detail."""

from collections.abc import Iterator, Sequence

import msgspec

from mesh.control.jobs.job_state import JobSeen
from mesh.control.status.checks import FAR_MS
from mesh.control.status.depth import QueueDepth, WorkerSeen
from mesh.figures import many, span
from mesh.protocol.messages import TIERS


class PendingReason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for which a job is not done yet."""

    code: str  # a stable word for programs
    text: str


class QueueContext(msgspec.Struct, frozen=True, kw_only=True):
    """What there is around a job that waits."""

    queue: QueueDepth | None  # its own; None: nothing is known of it
    queues: Sequence[QueueDepth]  # all of its model
    workers: Sequence[WorkerSeen]  # those of its model
    ahead: int | None  # jobs of its model and tier that wait and were stored before it; None: it was given out already
    ack_wait_ms: int  # how long a worker keeps a job without a sign


def pending_reasons(seen: JobSeen, place: QueueContext) -> list[PendingReason]:
    """Everything that keeps a queued job from being started; nothing if it runs."""
    if seen.state not in ("queued", "retrying"):
        return []
    return [*_last_attempt(seen, place), *_service(seen, place), *_line(seen, place), _deadline(seen)]


def _last_attempt(seen: JobSeen, place: QueueContext) -> Iterator[PendingReason]:
    if seen.state == "retrying":
        again = "it is delivered again after a pause"
        if seen.reason.endswith("is gone"):
            again = f"another takes over, at the latest {place.ack_wait_ms / 1000:g} s after the last sign of that one"
        elif seen.reason.startswith("returned"):
            again = "it is delivered again at once"
        yield PendingReason(code="retrying", text=f"attempt {seen.attempt} is over ({seen.reason}); {again}")
    elif place.ahead is None:
        yield PendingReason(
            code="delivered", text="it was delivered to a worker that has not begun it, or handed it back"
        )


def _service(seen: JobSeen, place: QueueContext) -> Iterator[PendingReason]:
    """Whether anybody could take it."""
    if place.queue is None or not place.queue.is_declared:
        text = f"nobody declared a queue for {seen.model}/{seen.tier}: a worker of any model ends it as failed"
        yield PendingReason(code="undeclared", text=text)
        return
    left_ms = place.queue.pause_left_ms
    if left_ms:
        rest = f" for another {span(left_ms)}" if left_ms < FAR_MS else " until it is resumed"
        yield PendingReason(code="paused", text=f"{seen.model}/{seen.tier} is paused{rest}")
    ready = [each.presence for each in place.workers if each.presence.state == "ready"]
    if not place.workers:
        yield PendingReason(code="no_worker", text=f"no worker of model {seen.model} is there")
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
    """Who comes first."""
    if place.ahead is None:
        return
    before = f"{many(place.ahead, 'job')} of its model and tier {'waits' if place.ahead == 1 else 'wait'} before it"
    yield PendingReason(code="position", text=before if place.ahead else "it is the next of its model and tier")
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
    return PendingReason(code="deadline", text=f"if it is not done by then, it expires in {span(seen.deadline_ms)}")
