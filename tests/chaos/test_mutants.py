"""The checker finds each bug planted in the workers within one run, and accepts workers without one.

Every run is a small soak with the same requests and faults. The workers are ordinary processes that start through
`mutant_worker.py`, which plants one bug and then runs `mesh worker`.
"""

import sys
from pathlib import Path

import pytest

from mesh.verify.soak import checker, rules_journal, rules_reader, rules_wire
from mesh.verify.soak.run import SoakOutcome, SoakSettings, soak

SCRIPT = Path(__file__).with_name("mutant_worker.py")

# The rule that each bug must break. It may break others too: one bug often has several effects.
CAUGHT_BY = {
    "ack-before-store": rules_wire.ACK_FOLLOWS,
    "unconfirmed-ack": rules_wire.ACK_CONFIRMED,
    "put-instead-of-create": rules_wire.CREATED,
    "no-fence": rules_wire.FENCED,
    "delivery-count": rules_journal.ONE_HISTORY,
    "term-on-error": rules_wire.NO_TERM,
    "ignored-cancel": rules_wire.CANCEL_HOLDS,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def small_soak(folder: Path, mutant: str) -> SoakOutcome:
    order = SoakSettings(
        folder=folder,
        requests=300,
        seed=11,
        workers=4,
        ack_wait_s=1.0,
        command=(sys.executable, str(SCRIPT), mutant),
        weights={"stop": 3.0, "kill": 1.0, "server": 1.0},
        pause_s=(0.1, 0.3),
        poison_every=0,
        open_at_once=40,  # fewer than slots: a suspended worker then gets deliveries that it never sees
        readers_s=5.0,
        drain_s=20.0,
    )
    return await soak(order, lambda line: None)


@pytest.mark.parametrize("mutant", CAUGHT_BY)
async def test_a_planted_bug_is_caught(tmp_path: Path, mutant: str) -> None:
    outcome = await small_soak(tmp_path, mutant)
    assert CAUGHT_BY[mutant] in {each.rule for each in outcome.violations}


async def test_the_workers_as_they_are_pass_the_same_run(tmp_path: Path) -> None:
    outcome = await small_soak(tmp_path, "none")
    assert [each.lines() for each in outcome.violations] == []
    assert outcome.figures.fault_count >= 3
    assert checker.WRITTEN_ONCE not in CAUGHT_BY.values()
    assert rules_reader.IN_ORDER not in CAUGHT_BY.values()
