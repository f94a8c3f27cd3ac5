"""`mesh audit`: what happened to jobs and what operators did, selected, followed, and as wide as the terminal."""

import json
import signal
import socket
from collections.abc import Iterator
from typing import Any, get_args

import pytest

import mesh as library
from mesh.cli.audit.audit import EVENTS
from mesh.cli.audit.audit_action import line_of, words_of
from mesh.protocol.messages import AuditEntry, AuditEvent
from tests.cli.conftest import Cli, wait_until


@pytest.fixture(scope="module", autouse=True)
def worker(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[None]:
    """The one worker of this module's tests."""
    cli = Cli(tmp_path_factory.mktemp("worker"), nats_url)
    running = cli.spawn("worker", "--engine", "simulator", "--name", "sim")
    running.wait_for(" ready: ")
    yield
    running.send(signal.SIGKILL)
    running.wait()


def entries(mesh: Cli, *arguments: str) -> list[dict[str, Any]]:
    shown = mesh.call("audit", "--json", *arguments)
    assert shown.returncode == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]


def run(mesh: Cli, job: str, tenant: str = "default", **fields: Any) -> None:
    """A job, until all of it is in the audit."""
    with library.blocking.connect(mesh.url, tenant=tenant) as client:
        client.generate("sim", "secret words", id=job, max_tokens=3, **fields)
    wait_until(lambda: [each for each in entries(mesh, "--job", job) if each["event"] == "ended"], "it is told")


def test_the_events_of_the_help_are_those_of_the_protocol() -> None:
    assert get_args(AuditEvent) == EVENTS


def test_a_job_is_shown_in_eighty_columns_and_selected_by_what_is_asked_for(mesh: Cli) -> None:
    run(mesh, "first", tenant="acme")
    run(mesh, "second", tenant="other")
    shown = mesh.screen("audit", "--tenant", "acme")
    lines = shown.stdout.splitlines()
    assert lines[0] == "when      event       tenant/job                what"
    assert [line.split()[1:3] for line in lines[2:]] == [
        ["accepted", "acme/first"],
        ["started", "acme/first"],
        ["ended", "acme/first"],
    ]
    assert "finished, 3 tokens" in lines[-1]
    assert all(len(line) <= 80 for line in lines)
    assert "secret" not in shown.stdout
    assert {each["tenant"] for each in entries(mesh, "--event", "ended")} == {"acme", "other"}
    assert [each["job"] for each in entries(mesh, "--limit", "1", "--event", "ended")] == ["second"]
    assert entries(mesh, "--model", "another") == []
    assert entries(mesh, "--job", "first", "--until", "1h") == []
    assert len(entries(mesh, "--job", "first", "--since", "1h")) == 3


def test_a_pipe_gets_names_whole(mesh: Cli) -> None:
    job = "long" * 15
    run(mesh, job, tenant="piped")
    assert f"piped/{job}  " in mesh.call("audit", "--tenant", "piped").stdout
    assert f"piped/{job}" not in mesh.screen("audit", "--tenant", "piped").stdout


def test_nothing_found_is_said(mesh: Cli) -> None:
    shown = mesh.call("audit", "--job", "nobody")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "nothing of that kind" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--follow", "--until", "1h"), "leave it out with --follow"),
        (("--since", "1h", "--until", "2h"), "--since must be the earlier"),
    ],
)
def test_times_that_make_no_sense_are_refused(mesh: Cli, arguments: tuple[str, ...], complaint: str) -> None:
    ended = mesh.call("audit", *arguments)
    assert ended.returncode == 2
    assert complaint in ended.stderr


def test_what_operators_do_is_told_with_who_and_where(mesh: Cli) -> None:
    assert mesh.call("pause", "sim/batch", "--for", "90s").returncode == 0
    assert mesh.call("resume", "sim/batch").returncode == 0
    paused, resumed = entries(mesh, "--model", "sim", "--event", "paused") + entries(mesh, "--event", "resumed")
    assert (paused["tier"], paused["for_s"], paused["by"]) == ("batch", 90, "mesh-cli")
    assert paused["host"] == resumed["host"] == socket.gethostname()
    shown = mesh.call("audit", "--event", "paused").stdout.splitlines()[-1]
    assert "for 1m, sim/batch" in shown


def test_a_dead_letter_that_is_dropped_and_one_that_is_redriven_are_told(mesh: Cli) -> None:
    for job in ("hopeless", "curable"):
        run(mesh, job, metadata={"simulate": {"fail": True}})
    assert mesh.call("dlq", "drop", "hopeless", "--apply").returncode == 0
    assert [each["event"] for each in entries(mesh, "--job", "hopeless")][-2:] == ["ended", "dropped"]
    buried = next(each for each in entries(mesh, "--job", "curable") if each["event"] == "buried")
    assert (buried["code"], buried["attempts"]) == ("attempts_exhausted", 3)
    assert mesh.call("dlq", "redrive", "curable", "--apply").returncode == 0
    redriven = next(each for each in entries(mesh, "--job", "curable") if each["event"] == "redriven")
    assert redriven["sequence"] == buried["sequence"]


def test_what_comes_is_followed_after_what_there_is(mesh: Cli) -> None:
    run(mesh, "before", tenant="watched")
    following = mesh.spawn("audit", "--tenant", "watched", "--follow", "--json", "--limit", "1")
    following.wait_for('"before"')
    run(mesh, "after", tenant="watched")
    following.wait_for('"ended"', 2)
    told = [json.loads(line) for line in following.out.splitlines()]
    assert [(each["job"], each["event"]) for each in told] == [
        ("before", "ended"),
        ("after", "accepted"),
        ("after", "started"),
        ("after", "ended"),
    ]
    following.send(signal.SIGINT)
    assert following.wait() == 130


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_told_in_one_line_however_hostile_its_names(event: str) -> None:
    entry = AuditEntry(
        event=event,
        unix_ms=1,
        by="w\x1b[31m",
        tenant="t",
        job="\x1b]0;j\n",
        model="漢" * 50,
        code="c\r\n",
        taken_from="\t",
        cause="x",
        count=7,
        for_s=90.0,
        total_ms=5,
    )
    line = line_of("13:00:00", entry.event, f"{entry.tenant}/{entry.job}", ", ".join(words_of(entry)), 80)
    assert "\x1b" not in line
    assert len(line.splitlines()) == 1
    assert len(line) <= 80
