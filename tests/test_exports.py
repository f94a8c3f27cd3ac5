"""`import mesh`: what it shows, what it costs, and what it does not load."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest

import mesh

ROOT = Path(__file__).parents[1]


def names_for_the_type_checker() -> set[str]:
    tree = ast.parse((ROOT / "mesh" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def loaded_by(statement: str) -> set[str]:
    """Modules in memory after `statement`, in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", mesh.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(mesh, name)
    assert inspect.getdoc(found) or get_origin(found) is Literal  # which says it by its values
    assert name in dir(mesh)


def test_the_type_checker_and_the_interpreter_see_the_same_names() -> None:
    assert set(mesh.__all__) == names_for_the_type_checker() == set(mesh._HOMES)
    assert len(mesh.__all__) == len(set(mesh.__all__))


def test_a_star_import_brings_exactly_what_is_promised() -> None:
    scope: dict[str, object] = {}
    exec("from mesh import *", scope)
    assert set(scope) - {"__builtins__"} == set(mesh.__all__)


def test_each_name_is_the_very_object_of_its_home() -> None:
    for name, home in mesh._HOMES.items():
        module = importlib.import_module(home)
        expected = module if home == f"mesh.{name}" else getattr(module, name)
        assert getattr(mesh, name) is expected


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        mesh.conect  # type: ignore[attr-defined]  # noqa: B018  # what a typing error looks like


def test_importing_the_package_loads_next_to_nothing() -> None:
    heavy = {"nats", "msgspec", "asyncio", "vllm", "torch", "uvloop", "click", "logging"}
    assert loaded_by("import mesh") & heavy == set()


def test_a_client_loads_neither_engine_nor_terminal() -> None:
    loaded = loaded_by("import mesh; mesh.connect")
    assert "nats" in loaded
    assert {"vllm", "torch", "transformers", "click", "mesh.engines", "mesh.worker", "mesh.cli"} & loaded == set()


def test_the_protocol_can_be_had_without_nats() -> None:
    loaded = loaded_by("import mesh.protocol.codec, mesh.protocol.validate, mesh.policies.affinity")
    assert {"nats", "asyncio", "logging"} & loaded == set()


def test_a_worker_of_the_simulator_loads_no_model_library() -> None:
    loaded = loaded_by("import mesh.hosting.host, mesh.engines.simulator.engine")
    assert {"vllm", "torch", "transformers"} & loaded == set()


def test_the_version_is_the_one_of_the_project_file() -> None:
    assert f'version = "{mesh.__version__}"' in (ROOT / "pyproject.toml").read_text()
