"""The reference is what the code says."""

import importlib.util
import sys
from types import ModuleType

import click
import pytest

import mesh
from mesh.cli.main import cli
from tests.docs.pages import ROOT


def load_generator() -> ModuleType:
    """docs/generate.py, which is a script and no part of a package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


@pytest.mark.parametrize("name", ["python.md", "cli.md", "settings.md", "metrics.md", "errors.md"])
def test_the_committed_page_is_what_the_code_says(name: str) -> None:
    same = GENERATOR.read(name) == GENERATOR.pages()[name]
    assert same, f"docs/reference/{name} is stale: run `{GENERATOR.COMMAND}`"


def test_no_page_is_left_over() -> None:
    assert {path.name for path in GENERATOR.REFERENCE.iterdir()} == set(GENERATOR.pages())


def test_every_public_name_command_and_error_is_there() -> None:
    pages = GENERATOR.pages()
    names = [name for name in mesh.__all__ if name != "errors"]
    assert [name for name in names if f"mesh.{name}" not in pages["python.md"]] == []
    commands = cli.list_commands(click.Context(cli))
    assert [name for name in commands if f"## mesh {name}\n" not in pages["cli.md"]] == []
    errors = [name for name in vars(mesh.errors) if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in pages["errors.md"]] == []


def test_every_metric_is_there() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "mesh" / "telemetry").glob("*.py"))
    quoted = {part for part in source.split('"') if part.startswith("mesh_") and part.replace("_", "").isalpha()}
    page = GENERATOR.pages()["metrics.md"]
    assert len(quoted) > 40
    assert [name for name in sorted(quoted) if f"`{name}`" not in page and f"`{name}_total`" not in page] == []
