"""`mesh tenant`: what it writes, what it says, and what it refuses."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

NATS = Path(__file__).parents[2] / "nats"


@pytest.fixture
def folder(cli: Cli) -> Path:
    """The accounts beside nats/tenants.conf, as they come with it."""
    shutil.copytree(NATS / "tenants.d", cli.folder / "tenants.d")
    return cli.folder / "tenants.d"


def test_a_tenant_is_added_listed_and_removed(cli: Cli, folder: Path) -> None:
    added = cli.run("tenant", "add", "acme")
    assert added.returncode == 0, added.stderr
    assert "tenants.d/acme.conf" in added.stdout
    assert "nats-server --signal reload" in added.stderr
    key = cli.folder / "acme.nk"
    assert key.stat().st_mode & 0o777 == 0o600
    seed = key.read_text().strip()
    written = "".join(each.read_text() for each in folder.iterdir())
    assert seed not in added.stdout + added.stderr + written

    assert cli.call("tenant", "add", "other", "--key-file", "elsewhere.nk").returncode == 0
    shown = cli.call("tenant", "ls")
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["tenant", "acme", "other"]
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())

    assert cli.call("tenant", "rm", "acme").returncode == 0
    assert [each["tenant"] for each in json.loads(cli.call("tenant", "ls", "--json").stdout)["tenants"]] == ["other"]
    assert sorted(each.name for each in folder.iterdir()) == ["index.conf", "other.conf"]
    assert key.exists(), "a secret is not removed behind anybody's back"


def test_programs_are_told_where_everything_is(cli: Cli, folder: Path) -> None:
    added = json.loads(cli.call("tenant", "add", "acme", "--json").stdout)
    assert added["tenant"] == "acme"
    assert added["public_key"] in (cli.folder / added["account"]).read_text()
    assert (cli.folder / added["key"]).is_file()
    assert "reload" in json.loads(cli.call("tenant", "rm", "acme", "--json").stdout)["reload"]


def test_no_tenant_is_said(cli: Cli, folder: Path) -> None:
    assert "no tenant" in cli.call("tenant", "ls").stderr


REFUSED = [
    (["add", "a.b"], ["tenant = 'a.b'", "[A-Za-z0-9_-]{1,64}"]),
    (["add", "a b"], ["tenant = 'a b'"]),
    (["add", ">"], ["tenant = '>'"]),
    (["add", "*"], ["tenant = '*'"]),
    (["add", ""], ["tenant = ''"]),
    (["add", "../acme"], ["tenant = '../acme'"]),
    (["add", "x" * 65], ["tenant = 'xxx"]),
    (["add", "änders"], ["tenant = 'änders'"]),
    (["add", "a\nb"], ["tenant = 'a\\nb'"]),
    (["add", "MESH"], ["tenant = 'MESH'", "another name"]),
    (["add", "mesh"], ["tenant = 'mesh'", "another name"]),
    (["add", "Sys"], ["tenant = 'Sys'", "another name"]),
    (["add", "taken"], ["tenant = 'taken'", "mesh tenant rm taken"]),
    (["add", "Taken"], ["tenant = 'Taken'", "'taken'", "upper and lower case"]),
    (["add", "new", "--connections", "0"], ["connections = 0", "between 1 and", "--connections N"]),
    (["add", "new", "--connections", "-5"], ["connections = -5"]),
    (["add", "new", "--subscriptions", "0"], ["subscriptions = 0", "--subscriptions N"]),
    (["add", "new", "--accounts", "nowhere"], ["accounts = 'nowhere'", "index.conf", "--accounts DIR"]),
    (["add", "new", "--key-file", "taken.nk"], ["key-file = 'taken.nk' exists", "--key-file PATH"]),
    (["add", "new", "--key-file", "nowhere/new.nk"], ["key-file = 'nowhere/new.nk'", "--key-file PATH"]),
    (["add", "new", "--namespace", "a.b"], ["namespace", "'a.b'"]),
    (["rm", "absent"], ["tenant = 'absent'", "there are: taken"]),
    (["rm", "taken", "--accounts", "nowhere"], ["accounts = 'nowhere'", "--accounts DIR"]),
    (["ls", "--accounts", "nowhere"], ["accounts = 'nowhere'", "--accounts DIR"]),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(each)[:40] for each, _ in REFUSED])
def test_what_cannot_be_is_refused_in_one_line_that_names_key_value_and_fix(
    cli: Cli, folder: Path, arguments: list[str], said: list[str]
) -> None:
    assert cli.call("tenant", "add", "taken").returncode == 0
    before = {each.name: each.read_text() for each in folder.iterdir()}
    ended = cli.call("tenant", *arguments)
    assert ended.returncode == 3
    assert ended.stderr.count("\n") == 1
    for part in said:
        assert part in ended.stderr
    assert {each.name: each.read_text() for each in folder.iterdir()} == before
    assert sorted(each.name for each in cli.folder.iterdir() if each.suffix == ".nk") == ["taken.nk"]


@pytest.mark.parametrize("arguments", [["add"], ["rm"], ["add", "new", "--connections", "many"]])
def test_wrong_usage_is_one_line_and_exit_2(cli: Cli, folder: Path, arguments: list[str]) -> None:
    ended = cli.call("tenant", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_leaves_no_key(cli: Cli, folder: Path) -> None:
    folder.chmod(0o500)
    ended = cli.call("tenant", "add", "new")
    folder.chmod(0o700)
    assert ended.returncode == 3
    assert "cannot be written" in ended.stderr
    assert not (cli.folder / "new.nk").exists()


def test_limits_are_set_shown_changed_and_cleared(mesh: Cli) -> None:
    assert "nothing limits any tenant" in mesh.call("tenant", "limits").stderr
    set_ = mesh.call("tenant", "limits", "acme", "--running", "8", "--requests-per-minute", "600")
    assert set_.returncode == 0, set_.stderr
    assert mesh.call("tenant", "limits", "--defaults", "--max-tokens", "4096").returncode == 0
    shown = mesh.call("tenant", "limits")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["tenant", "queued", "running", "req/min", "tok/day", "max", "out", "prompt", "B"],
        ["(all", "others)", "-", "-", "-", "-", "4096", "-"],
        ["acme", "-", "8", "600", "-", "-", "-"],
    ]
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert mesh.call("tenant", "limits", "acme", "--running", "none", "--queued", "5").returncode == 0
    only = json.loads(mesh.call("tenant", "limits", "acme", "--json").stdout)["limits"]
    assert only == [
        {
            "tenant": "acme",
            "queued": 5,
            "running": None,
            "requests_per_minute": 600,
            "tokens_per_day": None,
            "max_tokens": None,
            "prompt_bytes": None,
        }
    ]
    planned = json.loads(mesh.call("init", "--json").stdout)["changes"]
    assert {each["verb"] for each in planned if each["name"] in ("mesh_tenants", "MESH_USAGE")} == {"keep"}
    assert mesh.call("tenant", "limits", "acme", "--clear").returncode == 0
    assert "nothing limits acme" in mesh.call("tenant", "limits", "acme").stderr
    assert mesh.call("tenant", "limits", "--defaults", "--clear").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["acme", "--running", "0"], 3, "running = 0 is not between 1 and 1000; give --running N, or none"),
        (["acme", "--running", "1001"], 3, "running = 1001 is not between"),
        (["acme", "--queued", "-5"], 3, "queued = -5 is not between"),
        (["acme", "--requests-per-minute", "0"], 3, "requests-per-minute = 0"),
        (["acme", "--tokens-per-day", "-1"], 3, "tokens-per-day = -1"),
        (["acme", "--max-tokens", "0"], 3, "max-tokens = 0"),
        (["acme", "--prompt-bytes", "0"], 3, "prompt-bytes = 0"),
        (["acme", "--max-tokens", "99999999999999999999"], 3, "max-tokens = 99999999999999999999"),
        (["a.b", "--max-tokens", "5"], 3, "tenant: 'a.b' is not of the form"),
        (["acme", "--max-tokens", "many"], 2, "'many' is neither a number nor none"),
        (["acme", "--running", "1.5"], 2, "'1.5' is neither a number nor none"),
        (["--running", "5"], 2, "give NAME or --defaults"),
        (["--clear"], 2, "give NAME or --defaults"),
        (["acme", "--defaults", "--running", "5"], 2, "not both"),
    ],
)
def test_limits_that_cannot_be_are_refused_in_one_line(mesh: Cli, arguments: list[str], code: int, said: str) -> None:
    ended = mesh.call("tenant", "limits", *arguments)
    assert ended.returncode == code
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert json.loads(mesh.call("tenant", "limits", "--json").stdout)["limits"] == []
