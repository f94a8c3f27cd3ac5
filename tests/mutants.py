"""Bugs that the unit tests must see, each with the test that sees it. Planted by tests/mutation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One bug: text that is in a module once, what stands there instead, and the tests of which one fails then."""

    module: str
    old: str
    new: str
    tests: tuple[str, ...]


PUBLISHER = "tests/unit/worker/test_publisher.py::"
PULLER = "tests/unit/worker/test_puller.py::"
MAPPING = "tests/unit/broker/test_mapping.py::"
DEADLINES = "tests/unit/reconcile/test_deadlines.py::"
PRESENCE = "tests/unit/worker/test_presence.py::"
SUBJECTS = "tests/unit/protocol/test_subjects.py::"
SERVICE = "tests/unit/broker/test_service.py::"
LEADER = "tests/unit/reconcile/test_leader.py::"
WAITERS = "tests/unit/gateway/test_waiters.py::"

MUTANTS: dict[str, Mutant] = {
    # The publisher.
    "own-event-not-recognised": Mutant(
        "mesh/worker/publisher.py",
        "entry is not None and entry.body == self._in_flight",
        "False",
        (PUBLISHER + "test_its_own_event_is_recognised_after_a_lost_answer",),
    ),
    "lost-publish-not-repeated": Mutant(
        "mesh/worker/publisher.py",
        "if (entry.sequence if entry is not None else 0) == self._last:",
        "if False:",
        (PUBLISHER + "test_a_publish_that_never_left_is_sent_again",),
    ),
    "sent-without-lease": Mutant(
        "mesh/worker/publisher.py",
        "        if not self._is_held():\n            self._lose()\n            return\n        try:",
        "        try:",
        (PUBLISHER + "test_without_the_lease_nothing_is_published",),
    ),
    "refusal-is-a-landing": Mutant(
        "mesh/worker/publisher.py",
        "        except SequenceError:  # refused, or a publish that landed and was repeated: the journal tells which\n"
        "            self._recover()",
        "        except SequenceError as error:\n            self._landed(error.last)",
        (PUBLISHER + "test_a_job_that_another_took_over_gets_no_more_output",),
    ),
    # What is full.
    **{
        f"full-{number}-is-no-quota": Mutant(
            "mesh/broker/transport/mapping.py",
            "FULL = (10077, 10002, 10023, 10028, 10047)",
            f"FULL = {tuple(n for n in (10077, 10002, 10023, 10028, 10047) if n != number)}",
            (MAPPING + "test_what_is_full_is_a_quota_and_passes",),
        )
        for number in (10002, 10023, 10047)
    },
    # Deadlines.
    "expiry-without-grace": Mutant(
        "mesh/reconcile/deadlines.py",
        "self._heap[0][0] + EXPIRY_GRACE_MS <= now_unix_ms",
        "self._heap[0][0] <= now_unix_ms",
        (DEADLINES + "test_the_worker_that_runs_a_job_has_a_grace_to_end_it",),
    ),
    "grace-of-nothing": Mutant(
        "mesh/protocol/timing.py",
        "EXPIRY_GRACE_MS = 1000",
        "EXPIRY_GRACE_MS = 0",
        ("tests/unit/protocol/test_timing.py::test_the_constants_of_time_fit_together",),
    ),
    # The puller.
    "late-delivery-is-run": Mutant(
        "mesh/worker/puller.py",
        "        if self._suspension.is_suspected(self._clock.uptime_s()):\n            # The job",
        "        if False:\n            # The job",
        (PULLER + "test_a_delivery_that_lay_in_the_socket_of_a_suspended_process_is_left_alone",),
    ),
    "overdue-tick-ends-the-suspicion": Mutant(
        "mesh/worker/suspension.py",
        "max(self._gap_s, now_s - self._ticked_s) > self._limit_s",
        "now_s - self._ticked_s > self._limit_s",
        (PULLER + "test_a_delivery_is_left_alone_also_when_the_overdue_tick_came_first",),
    ),
    # Lanes.
    "draining-workers-keep-their-lanes": Mutant(
        "mesh/worker/presence.py",
        'each.model == self._model and each.state == "ready"',
        'each.model == self._model and each.state != "starting"',
        (PRESENCE + "test_a_worker_that_drains_keeps_no_lane",),
    ),
    # Replies.
    "replies-into-the-mesh": Mutant(
        "mesh/protocol/subjects.py",
        'not reply.startswith(("$", f"{self.ns}."))',
        'not reply.startswith("$")',
        (SUBJECTS + "test_nobody_is_answered_into_the_mesh_or_into_nats_itself",),
    ),
    "service-asks-not-where-it-answers": Mutant(
        "mesh/broker/transport/service.py",
        "            if not self._names.may_answer(to):\n                return",
        "            if False:\n                return",
        (SERVICE + "test_a_reply_into_the_mesh_is_neither_served_nor_answered",),
    ),
}
