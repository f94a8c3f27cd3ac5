"""`mesh doctor`: exit codes, JSON, and a report that a narrow terminal can show."""

import json

from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.health.doctor_action import lines_of
from mesh.cli.terminal.text import cells
from mesh.control.doctor.facts import LEVELS, AddressFacts, Advice, Facts
from mesh.server import free_port
from tests.cli.conftest import Cli


def test_without_nats_it_looks_at_this_machine_and_exits_with_1(cli: Cli) -> None:
    ended = cli.screen("doctor", "--quick", "--nats", f"nats://127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    assert ended.stderr == ""
    first, second, *_ = ended.stdout.splitlines()
    assert first.startswith("NATS     nats://127.0.0.1:")
    assert first.endswith(": no connection")
    assert second.startswith("here     ")
    assert "fix: start one on this machine with `mesh up`" in ended.stdout
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())


def test_a_mesh_in_order_exits_with_0_and_says_what_was_looked_at(mesh: Cli) -> None:
    ended = mesh.run("doctor", "--quick")
    assert ended.returncode == 0, ended.stdout
    assert "nats-server 2." in ended.stdout
    assert "mesh     mesh: 0 models, 0 workers, 0 jobs" in ended.stdout
    assert "\nerror" not in ended.stdout


def test_a_mesh_that_is_not_there_is_an_error_with_its_fix(mesh: Cli) -> None:
    ended = mesh.call("doctor", "--quick", "--namespace", "void", "--json")
    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    assert report["is_healthy"] is False
    assert report["advice"][0] == {
        "level": "error",
        "code": "no_mesh",
        "text": "no mesh called void is declared on this NATS",
        "fix": "`mesh init --namespace void --apply`",
    }
    assert report["facts"]["greeting"]["version"].startswith("2.")


def test_settings_that_cannot_be_used_are_findings_too(cli: Cli) -> None:
    for more in (["--creds", "nowhere.creds"], ["--nats", "nats://10.255.255.1:4222"]):
        ended = cli.call("doctor", "--quick", "--json", *more)
        report = json.loads(ended.stdout)
        assert (ended.returncode, ended.stderr) == (1, "")
        assert report["advice"][0]["code"] == "nats_setting"
        assert report["facts"]["local"]["max_files"] > 0


def test_secrets_are_in_no_report(mesh: Cli) -> None:
    at = mesh.url.replace("nats://", "nats://ada:hunter2@")
    for more in ([], ["--json"]):
        ended = mesh.call("doctor", "--quick", "--nats", at, *more)
        assert "hunter2" not in ended.stdout + ended.stderr


advice = st.builds(
    Advice,
    level=st.sampled_from(LEVELS),
    code=st.just("code"),
    text=st.text(min_size=1, max_size=300),
    fix=st.text(min_size=1, max_size=120),
)


@given(st.lists(advice, max_size=4), st.integers(min_value=40, max_value=120))
def test_no_line_is_wider_than_the_terminal_or_steers_it(found: list[Advice], width: int) -> None:
    facts = Facts(addresses=[AddressFacts(url="nats://n1.example:4222", is_local=False, asks_for_tls=False)])
    for line in lines_of(facts, found, width):
        assert cells(line) <= width
        assert line.isprintable()
