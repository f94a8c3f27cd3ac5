"""`mesh soak`, small."""

import json

import pytest

from tests.cli.conftest import Cli


@pytest.mark.slow
def test_a_small_soak_keeps_every_promise_and_leaves_nothing(cli: Cli) -> None:
    ended = cli.run("soak", "--requests", "60", "--workers", "2", "--seed", "5", "--json", "soak.json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "violations                    0" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
    figures = json.loads((cli.folder / "soak.json").read_text())
    assert (figures["requests"], figures["acknowledged"], figures["broken"]) == (60, 60, [])
    assert {path.name for path in cli.folder.iterdir()} <= {"soak.json"}
    cli.wait_gone()


def test_a_soak_begins_with_an_empty_folder(cli: Cli) -> None:
    (cli.folder / "data").mkdir()
    (cli.folder / "data" / "precious").touch()
    ended = cli.call("soak", "--data", "data")
    assert ended.returncode == 3
    assert "--data data is not empty" in ended.stderr
