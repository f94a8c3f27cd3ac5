"""Every change is tested with ten thousand requests under about two hundred faults, and a cluster that loses nodes.

`mesh soak` runs the same with other numbers; its help describes the requests, the faults and the checks.
"""

from pathlib import Path

import pytest

from mesh.verify.soak.history import FaultKind
from mesh.verify.soak.report import lines_of, lines_of_violations
from mesh.verify.soak.run import SoakOutcome, SoakSettings, soak

pytestmark = pytest.mark.slow


def check(outcome: SoakOutcome) -> None:
    """Every promise was kept, and there was something to keep it against."""
    shown = "\n".join([*lines_of(outcome.figures), "", *lines_of_violations(outcome.violations)])
    print(shown)
    if outcome.violations:
        pytest.fail(shown, pytrace=False)
    figures = outcome.figures
    assert figures.acknowledged == figures.requests
    assert sum(figures.ended.values()) == figures.requests
    assert figures.poison_buried == figures.poison > 0
    assert figures.retried > 0
    assert set(figures.ended) == {"finished", "failed", "cancelled", "expired"}


@pytest.mark.timeout(400)
async def test_ten_thousand_requests_survive_two_hundred_faults(tmp_path: Path) -> None:
    outcome = await soak(SoakSettings(folder=tmp_path, requests=10_000, seed=42), print)
    check(outcome)
    assert outcome.figures.fault_count >= 150
    assert {"kill", "stop", "cut", "reset", "slow", "server", "poison"} <= set(outcome.figures.faults)


@pytest.mark.timeout(240)
async def test_a_cluster_that_loses_its_nodes_loses_no_request(tmp_path: Path) -> None:
    weights: dict[FaultKind, float] = {"kill": 2.0, "stop": 1.0, "cut": 1.0, "reset": 1.0, "slow": 1.0, "server": 2.0}
    order = SoakSettings(folder=tmp_path, requests=600, seed=7, servers=3, weights=weights, poison_every=200)
    outcome = await soak(order, print)
    check(outcome)
    assert outcome.figures.faults["server"] >= 1
