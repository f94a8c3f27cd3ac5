"""The package index has another project called `mesh`: no text of ours may send anybody there."""

import re
from pathlib import Path

import pytest

from mesh._version import DISTRIBUTION, extra

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mesh"
# `mesh[metrics]` with no `inference-` before it, or an installation of `mesh`.
STRANGER = re.compile(r"(?<![\w-])mesh\[[a-z,]+\]|pip3? install (?:-\S+ )*['\"]?mesh(?![\w/])", re.ASCII)


def texts() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "compose.yaml"]
    for folder in ("mesh", "docs", "examples", "nats"):
        found += [each for each in (ROOT / folder).rglob("*") if each.suffix in {".py", ".md", ".yaml", ".sh", ".conf"}]
    return [each for each in found if "demo_model/model" not in str(each)]


def strangers_in(text: str) -> list[str]:
    return STRANGER.findall(text)


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("pip install 'mesh[metrics]'", True),
        ("pip install -U mesh", True),
        ("the extra mesh[plot]", True),
        ("pip install 'inference-mesh[metrics]'", False),
        ("pip install mesh/dist/a.whl", False),
        ("pip install '/src[metrics]' && mesh install vllm", False),
    ],
)
def test_the_guard_knows_a_stranger(text: str, is_wrong: bool) -> None:
    assert bool(strangers_in(text)) is is_wrong


def test_no_text_sends_anybody_to_the_other_project() -> None:
    assert {str(each): found for each in texts() if (found := strangers_in(each.read_text()))} == {}


def test_the_name_is_spelt_in_one_module() -> None:
    spelling = [each.name for each in PACKAGE.rglob("*.py") if DISTRIBUTION in each.read_text()]
    assert spelling == ["_version.py"]


def test_every_extra_that_the_package_names_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    source = "".join(each.read_text() for each in PACKAGE.rglob("*.py"))
    asked = set(re.findall(r"(?:extra|needing)\(['\"](\w+)['\"]", source))
    assert {"metrics", "tracing", "plot"} <= asked
    assert [name for name in sorted(asked) if f"\n{name} = [" not in project] == []
    assert extra("top") == "pip install 'inference-mesh[top]'"
