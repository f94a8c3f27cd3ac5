"""What the command line says about itself, and how fast."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mesh.cli import main, option_values
from mesh.protocol.messages import TIERS
from tests.cli.conftest import Cli

COMMANDS = main.cli.list_commands(click.Context(main.cli))


def command(name: str) -> click.Command:
    found = main.cli.get_command(click.Context(main.cli), name)
    assert found is not None
    return found


def test_help_lists_every_command(cli: Cli) -> None:
    shown = cli.run("--help")
    assert shown.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_reads_like_documentation(name: str) -> None:
    shown = command(name)
    text = shown.get_help(click.Context(shown, info_name=f"mesh {name}"))
    assert "Example" in text
    assert len(text.splitlines()) > 12


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_an_environment_variable_too(name: str) -> None:
    for each in command(name).params:
        if isinstance(each, click.Option) and not each.hidden:
            long = next(opt for opt in each.opts if opt.startswith("--"))
            assert each.envvar == "MESH_" + long[2:].replace("-", "_").upper()
            assert each.show_envvar
            assert each.help


def test_help_of_one_command_runs_as_a_process(cli: Cli) -> None:
    shown = cli.run("worker", "--help")
    assert shown.returncode == 0
    assert "MESH_NATS" in shown.stdout
    assert "default: nats://127.0.0.1:4222" in shown.stdout


def test_version(cli: Cli) -> None:
    assert cli.run("--version").stdout == "mesh 0.1.0\n"


def test_help_imports_nothing_heavy() -> None:
    modules = ", ".join(main._HOMES[name] for name in COMMANDS)
    code = f"import sys, mesh.cli.main, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "nats", "msgspec", "uvloop", "vllm", "torch", "rich", "textual"} & set(loaded)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_file_of_its_name_and_its_action_lies_beside_it(name: str) -> None:
    home = Path(main.__file__).parents[1].joinpath(*main._HOMES[name].split(".")[1:])
    assert home.with_suffix(".py").is_file()
    text = home.with_suffix(".py").read_text()
    if name != "completion":  # click writes the script; `completion_action` answers a press of Tab
        assert f"import {name}_action" in text or f" {name}_action" in text
        assert home.with_name(f"{name}_action.py").is_file()


def processor_s(*arguments: str) -> float:
    """Processor seconds of a Python with these arguments; other programs on the machine do not count."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        # A bare Python takes 14 to 30 ms of a processor. The help is to take 150 ms at most, the import 100 ms.
        (("-m", "mesh", "--help"), 8.0),
        (("-c", "import mesh"), 5.0),
    ],
)
def test_the_list_of_commands_and_the_package_load_at_once(arguments: tuple[str, ...], most: float) -> None:
    pairs = [(processor_s("-c", "pass"), processor_s(*arguments)) for _ in range(5)]
    bare, ours = (min(times) for times in zip(*pairs, strict=True))
    assert ours / bare <= most


def test_tiers_of_the_help_are_those_of_the_protocol() -> None:
    assert option_values.TIERS == TIERS


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["wrong"], "mesh: No such command 'wrong'"),
        (["worker", "--wrong"], "see `mesh worker --help`"),
        (["up", "--workers", "0"], "mesh: Invalid value for '--workers'"),
        (["result", "x", "--follow", "--json"], "--follow streams text"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(cli: Cli, arguments: list[str], text: str) -> None:
    ended = cli.run(*arguments)
    assert ended.returncode == 2
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1
