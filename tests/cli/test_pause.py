"""`mesh pause`, `mesh resume`, `mesh drain`: tables, JSON, exit codes, and what they do."""

import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import mesh as library
from mesh.cli.queues.queue_output import pause_words
from mesh.control.queues.pause import FOR_EVER_S, PausableQueue
from tests.cli.conftest import Cli, Running
from tests.cli.up import UP, url_of


def workers_of(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli.call("workers", "--json").stdout)["workers"]
    return found


@pytest.fixture
def declared(mesh: Cli) -> Iterator[Cli]:
    """`mesh` with the queue of model `chat`, and nobody who serves it."""
    assert mesh.call("init", "--apply", "--model", "chat").returncode == 0
    yield mesh
    mesh.call("resume", "chat")


def test_a_pause_shows_what_waits_in_every_tier(declared: Cli) -> None:
    with library.blocking.connect(declared.url) as client:
        client.submit("chat", "Hello", tier="batch", deadline_unix_ms=2_000_000_000_000)
    ended = declared.run("pause", "chat", "--for", "10m")
    assert ended.returncode == 0, ended.stderr
    assert [line.split() for line in ended.stdout.splitlines()] == [
        ["queue", "state", "waiting", "running"],
        ["chat/interactive", "paused", "for", "10m", "0", "0"],
        ["chat/standard", "paused", "for", "10m", "0", "0"],
        ["chat/batch", "paused", "for", "10m", "1", "0"],
    ]
    assert "deadlines still count" in ended.stderr

    resumed = declared.call("resume", "chat")
    assert resumed.returncode == 0
    assert resumed.stdout.count(" open ") == 3
    assert "3 of 3 queues had been paused." in resumed.stderr
    assert "none was paused." in declared.call("resume", "chat").stderr


def test_one_tier_is_paused_until_it_is_resumed_and_told_as_json(declared: Cli) -> None:
    paused = json.loads(declared.call("pause", "chat/standard", "--json").stdout)
    (queue,) = paused["queues"]
    assert (queue["model"], queue["tier"], queue["lanes"], queue["paused_lanes"]) == ("chat", "standard", 4, 4)
    assert (queue["is_paused"], queue["was_paused"], queue["resumes_in_s"]) == (True, False, None)
    again = json.loads(declared.call("pause", "chat/standard", "--for", "90s", "--json").stdout)
    assert again["queues"][0]["was_paused"]
    assert 80 < again["queues"][0]["resumes_in_s"] <= 90
    resumed = json.loads(declared.call("resume", "chat", "--json").stdout)
    assert [each["was_paused"] for each in resumed["queues"]] == [False, True, False]
    assert not any(each["is_paused"] for each in resumed["queues"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["pause", "other"], 3, "no queue of other is declared; there are models: chat"),
        (["resume", "other/batch"], 3, "there are models: chat"),
        (["pause", "chat/urgent"], 3, "interactive, standard, batch"),
        (["pause", "chat", "--for", "soon"], 2, "not a duration"),
        (["pause", "chat", "--for", "0"], 2, "--for must be more than 0"),
        (["pause", "chat", "--namespace", "void"], 3, "mesh init"),
    ],
)
def test_what_cannot_be_paused_is_one_line_and_a_code(
    declared: Cli, arguments: list[str], code: int, text: str
) -> None:
    ended = declared.call(*arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lanes", "pause_s", "words"),
    [
        (0, 0.0, "open"),
        (4, FOR_EVER_S, "paused"),
        (4, 89.7, "paused for 1m"),
        (1, 42.0, "paused for 42s (1 of 4 lanes)"),
    ],
)
def test_a_pause_in_words(lanes: int, pause_s: float, words: str) -> None:
    assert pause_words(PausableQueue("m", "batch", 0, 0, 4, lanes, pause_s)) == words


@pytest.fixture
def workers(mesh: Cli) -> Iterator[dict[str, Running]]:
    """Two workers of model `sim`, each as slow as a model."""
    settings = ("--engine", "simulator", "--name", "sim", "--engine-arg", "between_tokens_ms=20")
    names = (f"a-{uuid.uuid4().hex[:6]}", f"b-{uuid.uuid4().hex[:6]}")
    started = {name: mesh.spawn("worker", *settings, "--worker-id", name) for name in names}
    for each in started.values():
        each.wait_for(" ready: ")
    yield started
    for each in started.values():
        each.send(signal.SIGKILL)
        each.wait()


def test_a_drained_worker_ends_with_0_once_its_job_is_done(mesh: Cli, workers: dict[str, Running]) -> None:
    with library.blocking.connect(mesh.url) as client:
        job = client.submit("sim", "Tell me of the sea", max_tokens=5)
        next(iter(job))
        runs_on = workers_of(mesh)
        result_worker = job.result().worker
        assert {each["worker"] for each in runs_on} == set(workers)
        job = client.submit("sim", "Tell me of the sea", max_tokens=800)
        next(iter(job))
        ended = mesh.call("drain", "--model", "sim", "--wait")
        assert ended.returncode == 0, ended.stderr
        assert job.result().status == "finished"
    title, *rows = ended.stdout.splitlines()
    assert title.split() == ["worker", "running", "what", "happens"]
    assert [row.split()[0] for row in rows] == sorted(workers)
    assert sorted(row.split(maxsplit=2)[1:] for row in rows) == [
        ["0", "it ends"],
        ["1", "it takes no more; what runs has 30 s to finish"],
    ]
    assert result_worker in workers
    assert "all of them have ended." in ended.stderr
    assert [each.wait() for each in workers.values()] == [0, 0]
    assert workers_of(mesh) == []


def test_a_worker_that_is_not_there_is_refused_with_those_that_are(mesh: Cli, workers: dict[str, Running]) -> None:
    name = next(iter(workers))
    ended = mesh.call("drain", name, "w-nobody")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith(f"mesh: no worker w-nobody; there are: {name} (sim)")
    assert len(workers_of(mesh)) == 2
    assert mesh.call("drain", env={"MESH_MODEL": "sim"}).returncode == 2
    one = json.loads(mesh.call("drain", name, "--json", "--wait").stdout)
    assert one["workers"] == [
        {"worker": name, "answered": True, "running": 0, "grace_s": 30.0, "was_draining": False, "is_connected": False}
    ]


def test_one_that_is_suspended_is_no_success(mesh: Cli, workers: dict[str, Running]) -> None:
    name, other = workers
    workers[name].send(signal.SIGSTOP)
    ended = mesh.call("drain", name, other)
    assert ended.returncode == 1
    assert "may be suspended" in ended.stdout
    assert workers[other].wait() == 0
    workers[name].send(signal.SIGCONT)
    assert workers[name].wait() == 0, "it was told all the same"


def test_what_mesh_up_runs_stays_drained_and_its_queue_stays_open(cli: Cli) -> None:
    up = cli.spawn(*UP, "0", "--workers", "2")
    cli.url = url_of(up)
    up.wait_for("Ctrl-C drains and ends it.")
    names = [each["worker"] for each in workers_of(cli)]
    for number, name in enumerate(names, 1):
        assert cli.call("drain", name, "--wait").returncode == 0
        up.wait_for(" was drained; it is not restarted", count=number)
    assert up.out.count(" starts (pid ") == 2
    assert cli.call("submit", "--model", "simulator", "Hello").returncode == 0
    up.send(signal.SIGTERM)
    assert up.wait() == 0
    assert " died " not in up.out
    cli.wait_gone()
