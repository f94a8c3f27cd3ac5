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

ACTIONS = "tests/unit/worker/test_actions.py::"
LIVENESS = "tests/unit/worker/test_liveness.py::"
DETECTOR = "tests/unit/reconcile/test_failure_detector.py::"
UNROUTABLE = "tests/unit/reconcile/test_unroutable.py::"
QUOTA_GATE = "tests/unit/worker/test_quota_gate.py::"
CREDITS = "tests/unit/worker/test_credits.py::"

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
        "        except SequenceError:  # refused, or stored before and repeated: the journal tells which\n"
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
    # The puller.
    "late-delivery-is-run": Mutant(
        "mesh/worker/puller.py",
        "        if self._suspension.is_suspected(self._clock.uptime_s()):\n            # The delivery",
        "        if False:\n            # The delivery",
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
    "discovery-asks-not-where-it-answers": Mutant(
        "mesh/broker/transport/service.py",
        "if self._names.may_answer(to) and self._connection.is_connected:",
        "if self._connection.is_connected:",
        (SERVICE + "test_a_reply_into_the_mesh_is_neither_served_nor_answered",),
    ),
    "service-asks-not-where-it-answers": Mutant(
        "mesh/broker/transport/service.py",
        "            if not self._names.may_answer(to):\n                return",
        "            if False:\n                return",
        (SERVICE + "test_a_reply_into_the_mesh_is_neither_served_nor_answered",),
    ),
    # Actions: order, lease, and whose Result counts.
    "acts-without-lease": Mutant(
        "mesh/worker/actions.py",
        "        for action in actions:\n            if not self.is_held():\n                raise LostError\n",
        "        for action in actions:\n",
        (ACTIONS + "test_without_the_lease_nothing_is_done",),
    ),
    "repeats-without-lease": Mutant(
        "mesh/worker/actions.py",
        "        while True:\n"
        "            if not self.is_held():\n"
        "                raise LostError\n"
        "            try:\n"
        "                return await effect()",
        "        while True:\n            try:\n                return await effect()",
        (ACTIONS + "test_a_worker_that_is_never_confirmed_gives_up_when_its_lease_ends",),
    ),
    "gives-up-on-a-full-store": Mutant(
        "mesh/worker/actions.py",
        "                if not error.retryable:\n                    raise\n                log.debug",
        '                if not error.retryable or error.code == "quota_exceeded":\n'
        "                    raise\n"
        "                log.debug",
        (ACTIONS + "test_what_passes_is_tried_again",),
    ),
    "repeats-what-cannot-pass": Mutant(
        "mesh/worker/actions.py",
        "                if not error.retryable:\n                    raise\n",
        "",
        (ACTIONS + "test_what_does_not_pass_is_not_tried_again",),
    ),
    "stores-unconfirmed": Mutant(
        "mesh/worker/actions.py",
        "if not self._context.liveness.is_confirmed:",
        "if False:",
        (ACTIONS + "test_no_result_is_stored_while_the_server_has_not_confirmed_that_the_worker_lives",),
    ),
    "own-result-counts-always": Mutant(
        "mesh/worker/actions.py",
        "self.result = stored.result if stored is not None else result",
        "self.result = result",
        (ACTIONS + "test_the_result_that_was_there_first_counts",),
    ),
    "announces-what-it-made": Mutant(
        "mesh/worker/actions.py",
        "await self._announce(self.result or action.result, publisher)",
        "await self._announce(action.result, publisher)",
        (ACTIONS + "test_the_result_that_was_there_first_counts",),
    ),
    "acks-though-not-announced": Mutant(
        "mesh/worker/actions.py",
        "            if entry is None or not isinstance(entry.event, Result):\n                raise LostError",
        "            if False:\n                raise LostError",
        (ACTIONS + "test_a_result_is_not_announced_nor_acknowledged_where_another_wrote_since",),
    ),
    "never-acks-what-another-announced": Mutant(
        "mesh/worker/actions.py",
        "            if entry is None or not isinstance(entry.event, Result):\n                raise LostError",
        "            raise LostError",
        (ACTIONS + "test_a_result_that_another_has_announced_is_acknowledged",),
    ),
    "stays-held-after-ack": Mutant(
        "mesh/worker/actions.py",
        "        self._lease.is_lost = True\n        result = self.result",
        "        result = self.result",
        (ACTIONS + "test_after_the_end_the_job_is_not_this_workers_any_more",),
    ),
    "stays-held-after-nak": Mutant(
        "mesh/worker/actions.py",
        "        self._lease.is_lost = True\n        self._context.observer(JobReturned(self._ref, reason))",
        "        self._context.observer(JobReturned(self._ref, reason))",
        (ACTIONS + "test_a_job_is_handed_back_once",),
    ),
    "acks-old-delivery": Mutant(
        "mesh/worker/actions.py",
        "        self._delivery = delivery\n\n    def is_held",
        "        pass\n\n    def is_held",
        (ACTIONS + "test_what_is_said_after_a_redelivery_is_said_of_that_delivery",),
    ),
    "nak-without-delay": Mutant(
        "mesh/worker/actions.py",
        "self._context.leases.nak(self._delivery, action.delay_s)",
        "self._context.leases.nak(self._delivery)",
        (ACTIONS + "test_a_note_is_kept_before_the_job_is_handed_back",),
    ),
    "drop-goes-on": Mutant(
        "mesh/worker/actions.py",
        "                case Drop():\n                    raise LostError",
        "                case Drop():\n                    continue",
        (ACTIONS + "test_a_job_that_is_anothers_is_dropped_without_a_word",),
    ),
    "buries-unawaited": Mutant(
        "mesh/worker/actions.py",
        "await self.until_answered(lambda: self._context.dead.bury(self._delivery, action.reason, action.attempts))",
        "self._context.afterwards(self._context.dead.bury(self._delivery, action.reason, action.attempts))",
        (ACTIONS + "test_a_dead_letter_is_kept_before_the_result_says_so",),
    ),
    "close-is-skipped": Mutant(
        "mesh/worker/actions.py",
        "                    await publisher.fence(action.event)\n",
        "",
        (ACTIONS + "test_a_journal_is_closed_before_the_result_of_a_job_that_did_not_run_to_its_end",),
    ),
    "note-of-a-survivor-is-not-kept": Mutant(
        "mesh/worker/actions.py",
        "await self._context.journal.append(subject, note)",
        "pass",
        (ACTIONS + "test_a_worker_that_lost_a_job_and_lives_says_so",),
    ),
    # An ack that nobody confirmed.
    "ack-unconfirmed": Mutant(
        "mesh/broker/stores/pulls.py",
        'await self._connection.request(delivery.ack_subject, b"+ACK", timeout_s=ACK_TIMEOUT_S)',
        'self._connection.publish(delivery.ack_subject, b"+ACK")',
        (ACTIONS + "test_an_ack_is_confirmed_or_asked_for_again",),
    ),
    # The lease.
    "lease-without-guard": Mutant(
        "mesh/worker/lease.py",
        "self.ack_wait_s * (1 - LEASE_GUARD)",
        "self.ack_wait_s",
        (ACTIONS + "test_without_the_lease_nothing_is_done",),
    ),
    # The fence of the journal.
    "journal-without-fence": Mutant(
        "mesh/broker/stores/journal.py",
        "self._connection.call(subject, body, headers.expecting(last, _content_type(body)), on_reply, timeout_s)",
        "self._connection.call(subject, body, _content_type(body), on_reply, timeout_s)",
        (PUBLISHER + "test_a_job_that_another_has_begun_meanwhile_is_lost",),
    ),
    # The publisher, further.
    "repeats-though-another-wrote": Mutant(
        "mesh/worker/publisher.py",
        "if (entry.sequence if entry is not None else 0) == self._last:",
        "if True:",
        (PUBLISHER + "test_a_job_that_another_has_begun_meanwhile_is_lost",),
    ),
    "asks-a-silent-journal-for-ever": Mutant(
        "mesh/worker/publisher.py",
        "            if not self._is_held():\n"
        "                self._lose()\n"
        "                return\n"
        "            try:\n"
        "                entry",
        "            try:\n                entry",
        (PUBLISHER + "test_the_lease_bounds_how_long_a_silent_journal_is_asked",),
    ),
    "repeats-a-publish-without-lease": Mutant(
        "mesh/worker/publisher.py",
        "            if not self._is_held():\n                self._lose()\n                return True\n",
        "",
        (PUBLISHER + "test_the_lease_that_ends_while_the_journal_answers_ends_the_job",),
    ),
    "refused-first-not-told": Mutant(
        "mesh/worker/publisher.py",
        "self.is_refused_first = self._is_beginning",
        "self.is_refused_first = False",
        (PUBLISHER + "test_a_job_that_another_has_begun_meanwhile_is_lost",),
    ),
    "refused-first-always": Mutant(
        "mesh/worker/publisher.py",
        "self.is_refused_first = self._is_beginning",
        "self.is_refused_first = True",
        (PUBLISHER + "test_a_job_that_another_took_over_gets_no_more_output",),
    ),
    "fence-not-advanced": Mutant(
        "mesh/worker/publisher.py",
        "        self._last = sequence\n        self._in_flight = None",
        "        self._in_flight = None",
        (PUBLISHER + "test_a_job_that_another_took_over_gets_no_more_output",),
    ),
    "announces-though-lost": Mutant(
        "mesh/worker/publisher.py",
        "        if self._is_lost:\n            return False\n        self._pieces.clear()",
        "        self._is_lost = False\n        self._pieces.clear()",
        (PUBLISHER + "test_a_job_that_another_took_over_gets_no_more_output",),
    ),
    "silent-result-on-attempts": Mutant(
        "mesh/worker/publisher.py",
        "        if self._subject != self._public:\n            self._subject, self._last = self._public, 0\n",
        "",
        (PUBLISHER + "test_the_result_of_a_job_that_streams_nothing_is_its_first_public_event",),
    ),
    "grown-before-landed": Mutant(
        "mesh/worker/publisher.py",
        "            self.has_grown = True\n",
        "",
        (PUBLISHER + "test_output_whose_answer_was_lost_stands_once_and_the_next_follows_it",),
    ),
    # The puller, further.
    "held-up-pulls": Mutant(
        "mesh/worker/puller.py",
        " or self._is_held_up():\n            return\n",
        ":\n            return\n",
        (PULLER + "test_what_comes_while_nothing_may_begin_is_handed_back_at_once",),
    ),
    "starts-while-held-up": Mutant(
        "mesh/worker/puller.py",
        "is_open = not self._is_stopped and not self._is_held_up()",
        "is_open = not self._is_stopped",
        (PULLER + "test_what_comes_while_nothing_may_begin_is_handed_back_at_once",),
    ),
    "starts-while-stopped": Mutant(
        "mesh/worker/puller.py",
        "is_open = not self._is_stopped and not self._is_held_up()",
        "is_open = not self._is_held_up()",
        (PULLER + "test_what_comes_after_the_stop_is_handed_back_and_nothing_more_is_pulled",),
    ),
    "starts-beyond-capacity": Mutant(
        "mesh/worker/puller.py",
        "accepted = is_addressed and is_open and self._credits.accepts()",
        "accepted = is_addressed and is_open",
        (PULLER + "test_an_engine_with_one_slot_hands_back_what_it_cannot_start",),
    ),
    "hands-back-what-has-no-tenant": Mutant(
        "mesh/worker/puller.py",
        "            if is_token(delivery.address.tenant):\n"
        "                self._leases.nak(delivery)\n"
        "                return\n",
        "            self._leases.nak(delivery)\n            return\n",
        (PULLER + "test_a_request_without_a_tenant_that_has_a_name_goes_for_good",),
    ),
    "slot-not-released": Mutant(
        "mesh/worker/puller.py",
        "        self._credits.released()\n        self._pump_soon()",
        "        self._pump_soon()",
        (PULLER + "test_a_delivery_starts_and_holds_a_slot_until_it_is_released",),
    ),
    "late-delivery-keeps-slot": Mutant(
        "mesh/worker/puller.py",
        "self._credits.delivered(delivery.consumer, delivery.pending, accepted=False)",
        "self._credits.delivered(delivery.consumer, delivery.pending, accepted=True)",
        (PULLER + "test_while_a_suspension_is_suspected_nothing_is_pulled_and_afterwards_it_is",),
    ),
    "late-delivery-handed-back": Mutant(
        "mesh/worker/puller.py",
        '            log.warning("a delivery came late',
        '            self._hand_back(delivery)\n            log.warning("a delivery came late',
        (PULLER + "test_a_delivery_that_lay_in_the_socket_of_a_suspended_process_is_left_alone",),
    ),
    "pulls-while-suspected": Mutant(
        "mesh/worker/puller.py",
        "        if self._suspension.is_suspected(self._clock.uptime_s()):\n            return  #",
        "        if False:\n            return  #",
        (PULLER + "test_while_a_suspension_is_suspected_nothing_is_pulled_and_afterwards_it_is",),
    ),
    "stopped-but-pulls": Mutant(
        "mesh/worker/puller.py",
        "self._puller is None or self._is_stopped or not",
        "self._puller is None or not",
        (PULLER + "test_what_comes_after_the_stop_is_handed_back_and_nothing_more_is_pulled",),
    ),
    "emptied-too-soon": Mutant(
        "mesh/worker/puller.py",
        "if self._is_stopped and not self.open_pulls:",
        "if self._is_stopped:",
        (PULLER + "test_what_comes_after_the_stop_is_handed_back_and_nothing_more_is_pulled",),
    ),
    "emptied-never": Mutant(
        "mesh/worker/puller.py",
        "        self._check_emptied()\n        self._pump_soon()",
        "        self._pump_soon()",
        (PULLER + "test_what_comes_after_the_stop_is_handed_back_and_nothing_more_is_pulled",),
    ),
    "lost-pulls-stay-open": Mutant(
        "mesh/worker/puller.py",
        "            self._puller.reset()",
        "            pass",
        (PULLER + "test_after_a_loss_of_the_connection_it_pulls_anew",),
    ),
    # Credits.
    "refused-slot-held": Mutant(
        "mesh/worker/credits.py",
        "        if accepted:\n            self._running += 1",
        "        self._running += 1",
        (CREDITS + "test_an_engine_with_one_slot_waits_on_every_consumer_at_once",),
    ),
    "ended-pull-keeps-credit": Mutant(
        "mesh/worker/credits.py",
        "        state.asked = 0\n        state.is_open = False\n",
        "        state.is_open = False\n",
        (CREDITS + "test_an_engine_with_one_slot_waits_on_every_consumer_at_once",),
    ),
    "broken-not-declared": Mutant(
        "mesh/worker/puller.py",
        "        if broken:\n            self._broken.set()\n",
        "",
        (PULLER + "test_a_consumer_that_was_deleted_is_declared_anew",),
    ),
    # Liveness.
    "always-confirmed": Mutant(
        "mesh/worker/liveness.py",
        "return self._confirmed.is_set()",
        "return True",
        (LIVENESS + "test_a_life_begins_with_a_record_and_a_word_to_all",),
    ),
    "loss-ignored": Mutant(
        "mesh/worker/liveness.py",
        "        self._doubts += 1\n        self._confirmed.clear()",
        "        self._doubts += 1",
        (LIVENESS + "test_once_the_connection_was_lost_nothing_is_sure_until_the_server_says_so",),
    ),
    "old-answer-confirms": Mutant(
        "mesh/worker/liveness.py",
        "if doubts == self._doubts and not self._confirmed.is_set():",
        "if not self._confirmed.is_set():",
        (LIVENESS + "test_an_answer_from_before_the_loss_confirms_nothing",),
    ),
    "death-not-told": Mutant(
        "mesh/worker/liveness.py",
        "                self._on_dead()\n                await self.begin",
        "                await self.begin",
        (LIVENESS + "test_a_worker_that_was_declared_dead_gives_up_its_jobs_and_begins_a_new_life",),
    ),
    "death-not-believed": Mutant(
        "mesh/worker/liveness.py",
        "return entry.record != self._record()",
        "return False",
        (LIVENESS + "test_a_worker_that_was_declared_dead_gives_up_its_jobs_and_begins_a_new_life",),
    ),
    "every-refusal-is-death": Mutant(
        "mesh/worker/liveness.py",
        "return entry.record != self._record()",
        "return True",
        (LIVENESS + "test_a_renewal_whose_answer_was_lost_is_no_death",),
    ),
    "renews-without-fence": Mutant(
        "mesh/worker/liveness.py",
        "self._last = await self._liveness.write(self._record(), self._last)",
        "self._last = await self._liveness.write(self._record(), None)",
        (LIVENESS + "test_a_worker_that_was_declared_dead_gives_up_its_jobs_and_begins_a_new_life",),
    ),
    "namesake-goes-on": Mutant(
        "mesh/worker/liveness.py",
        "if entry.record is not None and entry.record.is_alive and entry.record.session != self._session:",
        "if False:",
        (LIVENESS + "test_two_workers_of_one_name_do_not_both_go_on",),
    ),
    "namesake-keeps-jobs": Mutant(
        "mesh/worker/liveness.py",
        "            self._on_dead()\n            raise ConfigError",
        "            raise ConfigError",
        (LIVENESS + "test_two_workers_of_one_name_do_not_both_go_on",),
    ),
    "forgotten-is-alive": Mutant(
        "mesh/worker/liveness.py",
        "> self._memory_s",
        "> 10 * self._memory_s",
        (LIVENESS + "test_a_record_that_the_stream_forgot_may_have_been_of_a_death",),
    ),
    "forgotten-is-dead": Mutant(
        "mesh/worker/liveness.py",
        "> self._memory_s",
        ">= self._memory_s",
        (LIVENESS + "test_a_record_that_the_stream_forgot_may_have_been_of_a_death",),
    ),
    "same-session": Mutant(
        "mesh/worker/liveness.py",
        "self._session = secrets.token_hex(8)",
        'self._session = "s"',
        (LIVENESS + "test_a_worker_that_was_declared_dead_gives_up_its_jobs_and_begins_a_new_life",),
    ),
    "given-lease-stays": Mutant(
        "mesh/worker/liveness.py",
        "        self._leases.pop(ack_subject, None)\n",
        "",
        (LIVENESS + "test_a_ping_is_answered_with_a_sign_of_life_or_with_all_it_holds",),
    ),
    "announces-never": Mutant(
        "mesh/worker/liveness.py",
        "if self._clock.monotonic_s() < self._watched_until_s:",
        "if False:",
        (LIVENESS + "test_what_it_takes_and_gives_is_announced_while_somebody_watches",),
    ),
    "announces-always": Mutant(
        "mesh/worker/liveness.py",
        "if self._clock.monotonic_s() < self._watched_until_s:",
        "if True:",
        (LIVENESS + "test_what_it_takes_and_gives_is_announced_while_somebody_watches",),
    ),
    "ping-answers-anywhere": Mutant(
        "mesh/worker/liveness.py",
        "        if not self._names.may_answer(to):\n            return\n",
        "",
        (LIVENESS + "test_it_never_answers_into_the_mesh",),
    ),
    "no-bye": Mutant(
        "mesh/worker/liveness.py",
        "self._connection.publish(self._names.leases(self._worker), BYE)",
        "pass",
        (LIVENESS + "test_a_worker_that_leaves_says_so_and_is_asked_no_more",),
    ),
    # The failure detector.
    "death-without-fence": Mutant(
        "mesh/reconcile/failure_detector.py",
        "await self._liveness.write(death, entry.sequence if entry is not None else 0)",
        "await self._liveness.write(death, None)",
        (DETECTOR + "test_a_worker_that_renews_its_record_is_alive_whoever_hears_it",),
    ),
    "silence-is-death": Mutant(
        "mesh/reconcile/failure_detector.py",
        "            pass  # a timeout does",
        "            return True  # a timeout does",
        (DETECTOR + "test_a_worker_that_reconnects_in_time_keeps_its_jobs",),
    ),
    "one-ping-is-enough": Mutant(
        "mesh/reconcile/failure_detector.py",
        "            if not await self._is_gone(peer):\n                peer.burial = None\n                return\n",
        "",
        (DETECTOR + "test_a_worker_that_reconnects_in_time_keeps_its_jobs",),
    ),
    "buries-unknown": Mutant(
        "mesh/reconcile/suspicion.py",
        "if not self.is_known or now_s < steady_from_s:",
        "if now_s < steady_from_s:",
        (DETECTOR + "test_a_worker_of_which_no_list_was_heard_is_not_buried",),
    ),
    "bye-ignored": Mutant(
        "mesh/reconcile/failure_detector.py",
        "        if payload == BYE:\n            self._forget(peer.name)\n        elif",
        "        if",
        (DETECTOR + "test_a_worker_that_says_farewell_is_not_taken_for_dead",),
    ),
    "taken-not-noted": Mutant(
        "mesh/reconcile/failure_detector.py",
        "            peer.suspicion.leases[payload[1:].decode()] = None",
        "            pass",
        (DETECTOR + "test_the_jobs_of_a_worker_that_is_gone_are_handed_back_at_once",),
    ),
    "given-not-noted": Mutant(
        "mesh/reconcile/failure_detector.py",
        "            peer.suspicion.leases.pop(payload[1:].decode(), None)",
        "            pass",
        (DETECTOR + "test_the_jobs_of_a_worker_that_is_gone_are_handed_back_at_once",),
    ),
    "hands-back-before-record": Mutant(
        "mesh/reconcile/failure_detector.py",
        "            if entry is None or entry.record is None or entry.record.is_alive:\n                death",
        "            for ack_subject in peer.leases:\n"
        "                self._leases.hand_back(ack_subject)\n"
        "            if entry is None or entry.record is None or entry.record.is_alive:\n"
        "                death",
        (DETECTOR + "test_its_death_is_on_the_record_before_its_jobs_are_given_away",),
    ),
    "list-not-asked-anew": Mutant(
        "mesh/reconcile/suspicion.py",
        "        self.is_known = False\n",
        "",
        (DETECTOR + "test_after_its_own_connection_was_away_it_asks_for_every_lease_anew_and_gives_workers_time",),
    ),
    "not-steady": Mutant(
        "mesh/reconcile/failure_detector.py",
        "self._steady_from_s = self._loop.time() + STEADY_S",
        "self._steady_from_s = self._loop.time()",
        (DETECTOR + "test_after_its_own_connection_was_away_it_asks_for_every_lease_anew_and_gives_workers_time",),
    ),
    "hello-unchecked": Mutant(
        "mesh/reconcile/failure_detector.py",
        "        if is_token(name):\n",
        "        if True:\n",
        (DETECTOR + "test_a_name_that_is_no_token_is_not_watched",),
    ),
    "list-ignored": Mutant(
        "mesh/reconcile/suspicion.py",
        "        self.leases = dict.fromkeys(leases)\n",
        "",
        (DETECTOR + "test_its_death_is_on_the_record_before_its_jobs_are_given_away",),
    ),
    "presence-stays": Mutant(
        "mesh/reconcile/failure_detector.py",
        "                self._presence.remove(peer.name)\n",
        "",
        (DETECTOR + "test_a_worker_that_is_gone_is_seen_no_more",),
    ),
    # Requests that nobody serves.
    "served-for-tier-of-others": Mutant(
        "mesh/reconcile/unroutable.py",
        "len(parts) == 4 and (parts[0], parts[1]) in self._served",
        "len(parts) == 4 and parts[0] in {each[0] for each in self._served}",
        (UNROUTABLE + "test_a_tier_that_does_not_exist_is_an_invalid_request",),
    ),
    "twin-is-ended": Mutant(
        "mesh/reconcile/unroutable.py",
        "            if await journal.last(subject(JobKey(stored.address.tenant, stored.job))) is not None:",
        "            if False:",
        (UNROUTABLE + "test_a_second_request_of_a_job_that_was_served_changes_nothing_of_it",),
    ),
    "silent-twin-is-ended": Mutant(
        "mesh/reconcile/unroutable.py",
        "for subject in (journal.subject, journal.attempts_subject):",
        "for subject in (journal.subject,):",
        (UNROUTABLE + "test_a_second_request_of_a_job_that_was_served_changes_nothing_of_it",),
    ),
    "no-tenant-has-result": Mutant(
        "mesh/reconcile/unroutable.py",
        "if stored.address is None or not is_token(stored.address.tenant):",
        "if stored.address is None:",
        (UNROUTABLE + "test_a_subject_without_a_tenant_can_have_no_result_and_is_removed",),
    ),
    "everybody-looks": Mutant(
        "mesh/reconcile/unroutable.py",
        "self._heard, QUEUE)",
        "self._heard)",
        (UNROUTABLE + "test_each_request_is_looked_at_by_one_process",),
    ),
    "no-sweep": Mutant(
        "mesh/reconcile/unroutable.py",
        "                    await self._clear(subject)",
        "                    pass",
        (UNROUTABLE + "test_what_was_stored_while_nobody_watched_is_found",),
    ),
    "model-fault-first": Mutant(
        "mesh/reconcile/unroutable.py",
        'if reason.code == "model_not_found" and stored.error is not None:',
        "if False:",
        (UNROUTABLE + "test_what_is_no_request_is_told_so_rather_than_that_its_model_is_unknown",),
    ),
    "unknown-is-served": Mutant(
        "mesh/reconcile/unroutable.py",
        "        if await topology.has_model(self._broker, model):\n            return None",
        "        return None",
        (UNROUTABLE + "test_a_request_for_a_model_that_nobody_serves_fails_by_name",),
    ),
    "served-is-ended": Mutant(
        "mesh/reconcile/unroutable.py",
        "        if await topology.has_model(self._broker, model):\n            return None\n",
        "",
        (UNROUTABLE + "test_a_request_that_a_worker_may_take_is_left_alone",),
    ),
    "tier-unchecked": Mutant(
        "mesh/reconcile/address_fault.py",
        "if tier not in TIERS:",
        "if False:",
        (UNROUTABLE + "test_a_tier_that_does_not_exist_is_an_invalid_request",),
    ),
    # The quota gate.
    "place-not-given-back": Mutant(
        "mesh/worker/quota_gate.py",
        "        if slot is not None:\n            self._slots.release(slot)",
        "        if slot is not None:\n            pass",
        (QUOTA_GATE + "test_a_place_that_was_left_is_the_next_ones",),
    ),
    "takes-twice": Mutant(
        "mesh/worker/quota_gate.py",
        " or job in self._held:\n",
        ":\n",
        (QUOTA_GATE + "test_a_job_that_has_its_place_takes_no_second",),
    ),
    "full-is-open": Mutant(
        "mesh/worker/quota_gate.py",
        "        if slot is None:\n            return False\n        self._held",
        "        if slot is None:\n            return True\n        self._held",
        (QUOTA_GATE + "test_a_place_that_was_left_is_the_next_ones",),
    ),
    "unasked-is-open": Mutant(
        "mesh/worker/quota_gate.py",
        'extra={"event": "quota_unasked"})\n            return False',
        'extra={"event": "quota_unasked"})\n            return True',
        (QUOTA_GATE + "test_without_an_answer_no_place_is_taken",),
    ),
    "place-released-without-fence": Mutant(
        "mesh/broker/stores/quota_slots.py",
        'headers.expecting(slot.sequence, b"KV-Operation: DEL\\r\\n")',
        'headers.block(("KV-Operation", "DEL"))',
        (QUOTA_GATE + "test_a_place_that_is_left_too_late_stays_with_who_has_it_now",),
    ),
    "lost-place-kept": Mutant(
        "mesh/worker/quota_gate.py",
        "            self._held.pop(job, None)\n        elif",
        "            pass\n        elif",
        (QUOTA_GATE + "test_a_place_whose_holder_was_away_is_not_taken_from_who_has_it_now",),
    ),
    "renewed-after-leave-stays": Mutant(
        "mesh/worker/quota_gate.py",
        "            self._slots.release(slot)  # the job",
        "            pass  # the job",
        (QUOTA_GATE + "test_a_job_that_ends_while_its_place_is_renewed_gives_it_back",),
    ),
    "place-not-renewed": Mutant(
        "mesh/worker/quota_gate.py",
        "            await self._slots.renew(slot)\n",
        "            pass\n",
        (QUOTA_GATE + "test_a_place_is_kept_while_its_job_runs",),
    ),
    "refusal-swallowed": Mutant(
        "mesh/worker/quota_gate.py",
        "        except RefusedError as error:\n            return error",
        "        except RefusedError:\n            return None",
        (QUOTA_GATE + "test_a_job_beyond_a_limit_is_refused_with_the_time_to_try_again",),
    ),
    "close-keeps-places": Mutant(
        "mesh/worker/quota_gate.py",
        "        for job in list(self._held):\n            self.leave(job)\n",
        "",
        (QUOTA_GATE + "test_a_worker_that_closes_gives_its_places_back",),
    ),
    "slot-without-fence": Mutant(
        "mesh/broker/stores/quota_slots.py",
        "self._worker, headers.expecting(last), 2.0)",
        'self._worker, b"", 2.0)',
        (QUOTA_GATE + "test_a_place_whose_holder_was_away_is_not_taken_from_who_has_it_now",),
    ),
    "spent-counts-output-only": Mutant(
        "mesh/worker/quota_gate.py",
        "result.usage.prompt_tokens + result.usage.completion_tokens",
        "result.usage.completion_tokens",
        (QUOTA_GATE + "test_what_was_spent_counts_once_for_each_job",),
    ),
    "limits-of-others": Mutant(
        "mesh/worker/quota_gate.py",
        "return self._quotas.of(tenant) is None",
        "return True",
        (QUOTA_GATE + "test_limits_hold_for_the_tenant_that_has_them",),
    ),
    # The leader.
    "leads-without-fence": Mutant(
        "mesh/reconcile/leader.py",
        "header = headers.expecting(self._revision)",
        'header = b""',
        (LEADER + "test_when_the_lease_lapses_the_next_to_ask_leads_and_the_old_leader_is_refused",),
    ),
    "refused-but-leads": Mutant(
        "mesh/reconcile/leader.py",
        "            self._revision = 0\n            return False",
        "            self._revision = 0\n            return True",
        (LEADER + "test_the_first_to_ask_is_the_leader_and_the_key_names_it",),
    ),
    "unknown-but-leads": Mutant(
        "mesh/reconcile/leader.py",
        "the next call finds out\n            return False",
        "the next call finds out\n            return True",
        (LEADER + "test_who_cannot_ask_is_no_leader",),
    ),
    "stale-fence-kept": Mutant(
        "mesh/reconcile/leader.py",
        "            self._revision = 0\n            return False",
        "            return False",
        (LEADER + "test_a_leader_whose_key_lapsed_asks_once_more_and_leads_again",),
    ),
    "fence-of-the-other": Mutant(
        "mesh/reconcile/leader.py",
        "        except SequenceError:\n            self._revision = 0\n",
        "        except SequenceError as error:\n            self._revision = error.last\n",
        (LEADER + "test_the_first_to_ask_is_the_leader_and_the_key_names_it",),
    ),
    "roles-share-a-key": Mutant(
        "mesh/reconcile/leader.py",
        ".leader.{role}",
        ".leader.any",
        (LEADER + "test_roles_do_not_exclude_each_other",),
    ),
    "revision-not-kept": Mutant(
        "mesh/reconcile/leader.py",
        '            self._revision = read_puback(payload, "leader lease").seq',
        '            read_puback(payload, "leader lease")',
        (LEADER + "test_the_leader_renews_its_lease",),
    ),
    # Who else waits.
    "hears-itself": Mutant(
        "mesh/gateway/waiters.py",
        "        self.close()\n        try:",
        "        try:",
        (WAITERS + "test_it_does_not_take_itself_for_another",),
    ),
    "suspended-door-does-not-count": Mutant(
        "mesh/gateway/waiters.py",
        "            pass  # a suspended",
        "            return False  # a suspended",
        (WAITERS + "test_a_front_door_that_is_suspended_may_have_a_requester",),
    ),
    "first-unasked": Mutant(
        "mesh/gateway/waiters.py",
        "return await self._first(job) not in (0, sequence)",
        "return False",
        (WAITERS + "test_a_job_that_another_request_began_is_shared",),
    ),
    "first-is-always-another": Mutant(
        "mesh/gateway/waiters.py",
        "return await self._first(job) not in (0, sequence)",
        "return True",
        (WAITERS + "test_a_job_of_which_nothing_is_known_is_not_shared",),
    ),
    "unknown-is-another": Mutant(
        "mesh/gateway/waiters.py",
        "return await self._first(job) not in (0, sequence)",
        "return await self._first(job) != sequence",
        (WAITERS + "test_a_job_of_which_nothing_is_known_is_not_shared",),
    ),
    "silent-jobs-not-read": Mutant(
        "mesh/broker/stores/journal.py",
        "(self.subject(key), self.attempts_subject(key)):\n            event = await self._first(subject)",
        "(self.subject(key),):\n            event = await self._first(subject)",
        (WAITERS + "test_a_job_that_another_request_began_is_shared",),
    ),
    "answers-for-another-job": Mutant(
        "mesh/gateway/waiters.py",
        "self._broker.connection.subscribe(self._subject(job), self._heard)",
        'self._broker.connection.subscribe(self._subject("*"), self._heard)',
        (WAITERS + "test_who_waits_for_another_job_says_nothing",),
    ),
    "answers-for-another-tenant": Mutant(
        "mesh/gateway/waiters.py",
        'return self._broker.names.system("joined", self._tenant, job)',
        'return self._broker.names.system("joined", "t", job)',
        (WAITERS + "test_who_waits_for_another_job_says_nothing",),
    ),
    "waiters-answer-anywhere": Mutant(
        "mesh/gateway/waiters.py",
        "if self._broker.names.may_answer(to):",
        "if True:",
        (WAITERS + "test_it_never_answers_into_the_mesh",),
    ),
    "stays-joined": Mutant(
        "mesh/gateway/waiters.py",
        "            self._joined.close()\n",
        "",
        (WAITERS + "test_who_has_stopped_waiting_does_not_count",),
    ),
    # Lanes, further.
    "starting-owns": Mutant(
        "mesh/worker/presence.py",
        ' and each.state == "ready"',
        ' and each.state != "draining"',
        (PRESENCE + "test_a_worker_that_starts_has_no_lane_yet",),
    ),
    "other-models-own": Mutant(
        "mesh/worker/presence.py",
        "each.model == self._model and ",
        "",
        (PRESENCE + "test_a_worker_of_another_model_takes_no_lane",),
    ),
    "looks-always": Mutant(
        "mesh/worker/presence.py",
        "        if self._clock.monotonic_s() < self._look_s:\n            return\n",
        "",
        (PRESENCE + "test_a_worker_that_began_to_drain_gives_its_lanes_to_the_others",),
    ),
    # Deadlines, further.
    "gone-is-due": Mutant(
        "mesh/reconcile/deadlines.py",
        "            if sequence >= first:\n                found.append(sequence)",
        "            found.append(sequence)",
        (DEADLINES + "test_a_request_that_left_the_queue_is_not_due",),
    ),
    "more-than-asked": Mutant(
        "mesh/reconcile/deadlines.py",
        " and len(found) < most and ",
        " and ",
        (DEADLINES + "test_the_earliest_deadline_comes_first_and_the_rest_stay_noted",),
    ),
}
