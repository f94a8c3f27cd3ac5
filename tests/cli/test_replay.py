"""`mesh replay`: a dry run first, then jobs of their own ids, and a report beside the originals."""

import json
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

import mesh as library
from tests.cli.conftest import Cli, wait_until


@pytest.fixture(scope="module", autouse=True)
def worker(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[None]:
    """The one worker of this module's tests, and recorded requests."""
    cli = Cli(tmp_path_factory.mktemp("worker"), nats_url)
    assert cli.run("init", "--record-requests", "--apply").returncode == 0
    running = cli.spawn("worker", "--engine", "simulator", "--name", "sim")
    running.wait_for(" ready: ")
    for tenant, count in (("acme", 3), ("other", 2)):
        with library.blocking.connect(nats_url, tenant=tenant) as client:
            for number in range(count):
                client.generate("sim", "secret words", id=f"of-{tenant}-{number}", max_tokens=3)
    told = ("audit", "--event", "ended", "--json")
    wait_until(lambda: len(cli.call(*told).stdout.splitlines()) == 5, "the originals are in the audit")
    yield
    running.send(signal.SIGKILL)
    running.wait()


def test_a_dry_run_shows_what_would_be_submitted_and_submits_nothing(mesh: Cli) -> None:
    shown = mesh.call("replay", "--since", "1h", "--speed", "2", "--to-model", "sim")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        "tenant  model/tier    requests",
        "acme    sim/standard         3",
        "other   sim/standard         2",
    ]
    assert "Nothing was submitted; --apply submits them." in shown.stderr
    assert "secret" not in shown.stdout + shown.stderr
    plan = json.loads(mesh.call("replay", "--tenant", "acme", "--limit", "2", "--json").stdout)
    assert (plan["applied"], plan["requests"], plan["missing"]) == (False, 2, 0)
    assert mesh.call("jobs").stdout == ""


def test_what_is_replayed_is_reported_beside_the_originals(mesh: Cli) -> None:
    shown = mesh.call("replay", "--tenant", "acme", "--speed", "max", "--apply")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert "3 of 3 submitted as replay-" in lines[0]
    assert lines[1] == "ended: finished 3"
    assert lines[2].split() == ["p50", "p90", "p99"]
    assert [line.rsplit(None, 3)[0] for line in lines[3:]] == [
        "first token, originals",
        "first token, replays",
        "total, originals",
        "total, replays",
    ]
    assert all(len(line) <= 80 for line in lines)
    run = lines[0].split()[1].removesuffix(":")
    with library.blocking.connect(mesh.url, tenant="acme") as client:
        original, replayed = (client.result(f"{prefix}of-acme-0") for prefix in ("", f"replay-{run}-"))
    assert original.text == replayed.text


def test_a_report_for_programs_and_another_tenant(mesh: Cli) -> None:
    shown = mesh.call("replay", "--tenant", "other", "--to-tenant", "trial", "--speed", "max", "--apply", "--json")
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    assert (report["submitted"], report["ended"], report["open"]) == (2, {"finished": 2}, 0)
    assert set(report["times"]["total_ms_replays"]) == {"p50", "p90", "p99"}
    with library.blocking.connect(mesh.url, tenant="trial") as client:
        assert client.result(f"replay-{report['run']}-of-other-1").status == "finished"


def test_nothing_to_replay_is_said(mesh: Cli) -> None:
    shown = mesh.call("replay", "--tenant", "nobody", "--apply")
    assert shown.returncode == 0
    assert "no recorded request is to be replayed" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--speed", "fast"), 2, "'fast' is neither a number such as 1 or 0.5, nor max"),
        (("--speed", "0"), 2, "neither a number"),
        (("--speed", "nan"), 2, "neither a number"),
        (("--since", "1h", "--until", "2h"), 2, "--since must be the earlier"),
        (("--to-model", "a=b=c"), 3, "neither NEW nor OLD=NEW"),
        (("--to-model", "a", "--to-model", "b"), 3, "not a and b"),
        (("--to-model", "unserved"), 3, "the target has no model unserved"),
        (("--to-tenant", "a.b"), 3, "to-tenant"),
        (("--tenant", "a.b"), 3, "tenant"),
        (("--to-namespace", "nowhere"), 3, "no mesh on this NATS"),
        (("--to-creds", "x"), 3, "--to-creds is for --to-nats"),
        (("--to-nats", "nats://127.0.0.1:1"), 4, "cannot reach NATS"),
        (("--namespace", "nowhere"), 3, "no mesh on this NATS"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    mesh: Cli, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    ended = mesh.call("replay", "--apply", *arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert complaint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_interrupted_replay_reports_what_it_did(mesh: Cli) -> None:
    running = mesh.spawn("replay", "--speed", "0.000001", "--apply")  # the second is due in years

    def is_submitted() -> bool:
        (last,) = mesh.call("audit", "--event", "ended", "--limit", "1", "--json").stdout.splitlines()
        job = json.loads(last)["job"]
        return bool(job.startswith("replay-") and job.endswith("of-acme-0"))

    wait_until(is_submitted, "the first is submitted")
    running.send(signal.SIGINT)
    assert running.wait() == 130
    assert "1 of 5 submitted" in running.out
    assert "ended: finished 1" in running.out


def test_another_nats_gets_none_of_our_credentials(mesh: Cli) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(
                    b'INFO {"server_id":"x","version":"2.15.1","headers":true,"max_payload":1048576}\r\n'
                )
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        there = f"nats://127.0.0.1:{listening.getsockname()[1]}"
        ended = mesh.call("replay", "--to-nats", there, "--user", "alice", "--password", "hush", "--apply")
        thread.join(10)
    assert ended.returncode == 4
    assert b"CONNECT" in heard[0]
    assert b"alice" not in heard[0]
    assert b"hush" not in heard[0]
