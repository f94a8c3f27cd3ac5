"""The soak's plan is the seed's, and its check sees whatever is done to a journal or to what a reader was shown."""

import itertools
import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.client.requests import build_request
from mesh.protocol.messages import Delta
from mesh.verify.soak import plan
from mesh.verify.soak.checker import check
from mesh.verify.soak.history import StoredEvent
from mesh.verify.soak.oracle import reference_of
from mesh.verify.soak.violation import Bounds
from tests.chaos.histories import EVENTS, JOB, SETTINGS, clean

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_same_seed_wishes_the_same(seed: int) -> None:
    once, again = (list(plan.planned_jobs(random.Random(seed), 60)) for _ in range(2))
    assert once == again
    assert len({wish.job for wish in once}) == 60


@given(seeds, st.integers(1, 40))
def test_poison_comes_by_count(seed: int, every: int) -> None:
    planned_jobs = list(plan.planned_jobs(random.Random(seed), 4 * every, every))
    assert sum(planned.kind == "poison" for planned in planned_jobs) == 4


@given(seeds)
def test_every_wish_is_a_request_that_the_simulator_takes(seed: int) -> None:
    for planned in plan.planned_jobs(random.Random(seed), 20):
        request = build_request(None, dict(planned.fields, id=planned.job))
        reference = reference_of(request, planned.tenant, planned.job, SETTINGS)
        assert 0 < len(reference.token_ids) <= planned.fields["max_tokens"]
        assert reference.finish_reason in ("length", "stop")


@given(seeds, st.floats(1, 60))
def test_faults_come_at_the_asked_pace_and_zombies_outlive_their_lease(seed: int, ack_wait_s: float) -> None:
    found = list(itertools.islice(plan.faults(random.Random(seed), ack_wait_s, plan.WEIGHTS), 50))
    assert found == list(itertools.islice(plan.faults(random.Random(seed), ack_wait_s, plan.WEIGHTS), 50))
    for fault in found:
        assert plan.PAUSE_S[0] <= fault.pause_s <= plan.PAUSE_S[1]
        if fault.kind in ("stop", "cut"):
            assert fault.for_s > ack_wait_s


@given(seeds)
def test_a_kind_without_weight_never_strikes(seed: int) -> None:
    found = itertools.islice(plan.faults(random.Random(seed), 2.0, {"kill": 1.0, "stop": 0.0, "cut": 2.0}), 50)
    assert {fault.kind for fault in found} <= {"kill", "cut"}


@given(st.permutations(range(len(EVENTS))))
def test_no_other_order_of_a_journal_passes(order: list[int]) -> None:
    history = clean()
    history.events[JOB] = [StoredEvent(10 + at, EVENTS[number]) for at, number in enumerate(order)]
    assert (check(history, SETTINGS, Bounds()) == []) == (list(order) == sorted(order))


@given(st.lists(st.integers(0, len(EVENTS) - 1), max_size=len(EVENTS) + 2))
def test_no_choice_of_its_events_passes_but_all_of_them(chosen: list[int]) -> None:
    history = clean()
    history.events[JOB] = [StoredEvent(10 + at, EVENTS[number]) for at, number in enumerate(chosen)]
    assert (check(history, SETTINGS, Bounds()) == []) == (chosen == list(range(len(EVENTS))))


@given(st.lists(st.integers(0, 3), max_size=6))
def test_a_reader_that_saw_the_end_saw_each_piece_once_and_in_order(chosen: list[int]) -> None:
    history = clean()
    pieces = [event for event in EVENTS if isinstance(event, Delta)]
    history.shown[0] = replace(history.shown[0], pieces=tuple(pieces[number] for number in chosen))
    assert (check(history, SETTINGS, Bounds()) == []) == (chosen == [0, 1, 2, 3])
