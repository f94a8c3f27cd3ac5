"""Each `--json` is one object a line that says its schema, in every command that has the option."""

import json
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import click
import pytest

import mesh as library
from mesh.cli import main
from tests.cli.conftest import ROOT, Cli

# How each command with --json is called here; the job and the worker are those of the fixture.
CALLS: dict[str, tuple[str, ...]] = {
    "generate": ("Hello", "--max-tokens", "2"),
    "result": ("done",),
    "status": ("--no-rates",),
    "jobs": (),
    "job": ("done",),
    "tail": ("done",),
    "audit": ("--limit", "3"),
    "workers": (),
    "doctor": ("--quick",),
    "dlq ls": (),
    "dlq show": ("lost",),
    "dlq redrive": ("--all",),
    "dlq drop": ("--all",),
    "pause": ("sim/batch",),
    "resume": ("sim/batch",),
    "init": (),
    "tenant add": ("acme",),
    "tenant ls": (),
    "tenant rm": ("acme",),
    "tenant limits": (),
    "replay": (),
    "bench": ("FILE", "--num-prompts", "2", "--input-len", "4", "--output-len", "2"),
    "soak": ("FILE", "--requests", "20", "--workers", "2"),
    "drain": ("w-1",),  # the last: it ends the worker
}


def commands_with_json() -> Iterator[str]:
    def look(command: click.Command, name: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                assert found is not None
                yield from look(found, f"{name} {each}".strip())
        elif any("--json" in parameter.opts for parameter in command.params):
            yield name

    yield from look(main.cli, "")


@pytest.fixture(scope="module")
def served(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh with the worker `w-1` of model `sim`, the job `done`, and the dead letter `lost`."""
    cli = Cli(tmp_path_factory.mktemp("served"), nats_url)
    shutil.copytree(ROOT / "nats" / "tenants.d", cli.folder / "tenants.d")
    assert cli.run("init", "--apply", "--model", "sim", "--record-requests").returncode == 0
    worker = cli.spawn(
        "worker", "--engine", "simulator", "--name", "sim", "--worker-id", "w-1", "--max-attempts", "1", "--grace", "1"
    )
    worker.wait_for(" ready: ")
    with library.blocking.connect(nats_url) as client:
        assert client.generate("sim", "Hello", id="done", max_tokens=3).status == "finished"
        lost = client.submit("sim", "Hello", id="lost", max_tokens=3, metadata={"simulate": {"fail": True}})
        assert lost.result().status == "failed"
    yield cli
    worker.send(signal.SIGKILL)
    worker.wait()


def test_every_command_with_the_option_is_called_here() -> None:
    assert sorted(CALLS) == sorted(commands_with_json())


@pytest.mark.parametrize("name", CALLS)
def test_the_json_of_a_command_says_its_schema(served: Cli, name: str) -> None:
    first, *more = CALLS[name] or ("",)
    is_file = first == "FILE"
    arguments = ("--json", "out.json", *more) if is_file else (*CALLS[name], "--json")
    ended = served.run(*name.split(), *arguments, deadline_s=50)
    assert ended.returncode in (0, 1), ended.stderr
    text = (served.folder / "out.json").read_text() if is_file else ended.stdout
    shown: list[Any] = [json.loads(text)] if is_file else [json.loads(line) for line in text.splitlines()]
    assert shown
    for each in shown:
        assert isinstance(each, dict)
        assert next(iter(each)) == "schema"
        assert each["schema"] == 1
        assert len(each) > 1
