"""The page about time tells the values of the code."""

import importlib
import re
from functools import reduce

import pytest

from tests.docs.pages import text_of

PAGE = "docs/concepts/timing.md"
ROWS = re.findall(r"^\| `([\w.]+)` \| ([\d.]+)(?: (s|ms))? \|", text_of(PAGE), re.MULTILINE)


def value_of(path: str) -> float:
    """A constant, or a default of a dataclass, by its name below `mesh`."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(["mesh", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        *owners, name = parts[cut:]
        owner = reduce(getattr, owners, module)
        fields = getattr(owner, "__dataclass_fields__", {})
        return float(fields[name].default if name in fields else getattr(owner, name))
    raise LookupError(f"mesh has no {path}")


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 35


@pytest.mark.parametrize(("path", "shown", "unit"), ROWS, ids=[row[0] for row in ROWS])
def test_a_constant_has_the_value_that_the_page_tells(path: str, shown: str, unit: str) -> None:
    assert value_of(path) == float(shown)
    if path.endswith("_MS"):
        assert unit == "ms"
    elif unit:
        assert path.lower().endswith("_s")


def test_the_inequalities_of_the_page_hold() -> None:
    assert value_of("reconcile.failure_detector.PING_S") + value_of("reconcile.failure_detector.PATIENCE_S") < 1
    ping_s = value_of("broker.transport.connection.PING_INTERVAL_S")
    pings = value_of("broker.transport.connection.MAX_OUTSTANDING_PINGS")
    assert value_of("worker.death_check.OBJECTION_S") >= ping_s * (pings + 1)
    assert value_of("broker.topology.streams.MeshSettings.ack_wait_s") > 7
    age_s = value_of("broker.topology.streams.MeshSettings.events_age_s")
    assert age_s > value_of("protocol.messages.DEFAULT_DEADLINE_MS") / 1000
    lease_s = value_of("broker.topology.streams.MeshSettings.ack_wait_s")
    assert value_of("client.client.BOUND_MARGIN_S") > lease_s
