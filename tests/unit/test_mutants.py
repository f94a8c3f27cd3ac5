"""The unit tests can fail: each bug planted in a module is seen by the test that is named for it."""

import json
import subprocess
import sys

import pytest

from tests.mutants import MUTANTS
from tests.mutation import ROOT

# How a test fails that could not run: a fault of the test or of the mutant, and no bug that was seen.
FAULTS = ("PlantingError", "TypeError", "AttributeError", "NameError", "ImportError", "SyntaxError", "fixture '")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[str, dict[str, str]]:
    """How the tests of each bug that is asked for went, by name and test; "": it passed."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [
        str(item.callspec.params["name"]) for item in items if item.originalname == test_a_planted_bug_is_seen.__name__
    ]
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutation", *asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    answer = json.loads(run.stdout)
    assert answer["status"] == 0, answer["said"]
    found: dict[str, dict[str, str]] = answer["outcomes"]
    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_seen(outcomes: dict[str, dict[str, str]], name: str) -> None:
    by_test = outcomes[name]
    assert by_test, f"there is no test {MUTANTS[name].tests}"
    failures = [each for each in by_test.values() if each]
    assert failures, f"no test saw it: {', '.join(by_test)}"
    assert not any(each in failures[0] for each in FAULTS), failures[0]
