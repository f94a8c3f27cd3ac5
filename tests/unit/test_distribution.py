"""Hints name the package's own distribution, never the PyPI project `mesh`."""

import re
import tomllib
from pathlib import Path

from mesh.distribution import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[2]


def test_the_constant_is_the_name_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    assert install_command("metrics") == "pip install 'inference-mesh[metrics]'"


def test_every_hint_in_the_code_is_made_from_the_constant() -> None:
    hint = re.compile(r"install[^\n]*[ '\"](mesh\[|inference-mesh)")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "mesh").rglob("*.py"))
        if path.name != "distribution.py"
        for line in path.read_text().splitlines()
        if hint.search(line)
    ]
    assert found == []
