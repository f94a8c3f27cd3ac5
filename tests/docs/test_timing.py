"""The page about time tells the values of the code."""

import importlib
import re
from functools import reduce

import pytest

from mesh.broker.topology import MeshSettings
from mesh.protocol import timing
from mesh.protocol.messages import DEFAULT_DEADLINE_MS
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


def test_every_constant_that_rooms_share_is_told() -> None:
    told = {path.removeprefix("protocol.timing.") for path, _, _ in ROWS}
    assert {name for name in vars(timing) if name.isupper()} - told == set()


def test_the_inequalities_of_the_page_hold() -> None:
    """Those of the shared constants among each other are in tests/unit/protocol/test_timing.py."""
    assert timing.PEER_PING_S + timing.PEER_PATIENCE_S < 1
    assert MeshSettings().ack_wait_s > 7  # an election's longest
    assert MeshSettings().events_age_s > DEFAULT_DEADLINE_MS / 1000
    assert MeshSettings().ack_wait_s < timing.RESULT_MARGIN_S
