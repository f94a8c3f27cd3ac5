"""`mesh jobs`, `mesh job` and `mesh tail`: tables, lives, live tokens, exit codes."""

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import mesh as library
from mesh.cli.jobs import jobs
from mesh.control.jobs.job_state import STATES
from tests.cli.conftest import Cli, wait_until

SLOW = ("--engine-arg", "between_tokens_ms=30", "--capacity", "2")
LONG: dict[str, Any] = {"max_tokens": 1000, "ignore_eos": True}


@pytest.fixture(scope="module", autouse=True)
def worker(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[None]:
    """The one worker of this module's tests: slow, with two slots."""
    cli = Cli(tmp_path_factory.mktemp("worker"), nats_url)
    running = cli.spawn("worker", "--engine", "simulator", "--name", "sim", *SLOW)
    running.wait_for(" ready: ")
    yield
    running.send(signal.SIGKILL)
    running.wait()


def listed(mesh: Cli, *arguments: str) -> list[dict[str, Any]]:
    shown = mesh.call("jobs", "--json", *arguments)
    assert shown.returncode == 0, shown.stderr
    found: list[dict[str, Any]] = json.loads(shown.stdout)["jobs"]
    return found


def test_no_jobs_is_a_friendly_line_and_no_error(mesh: Cli) -> None:
    ended = mesh.run("jobs")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "no jobs" in ended.stderr


def test_running_and_queued_jobs_are_listed_within_80_columns(mesh: Cli) -> None:
    with library.blocking.connect(mesh.url, tenant="acme") as client:
        made = [client.submit("sim", f"{n}", id=f"j{n:032x}", **LONG) for n in range(5)]
        wait_until(lambda: len(listed(mesh, "--state", "running")) == 2, "two run")
        shown = mesh.screen("jobs", "--tenant", "acme")
        title, *rows = shown.stdout.splitlines()
        titles = ["job", "tenant", "model/", "state", "age", "try", "out", "worker"]
        assert [word[:6] for word in title.split()] == titles
        assert sorted(row.split()[0] for row in rows) == sorted(job.id for job in made)
        assert [row.split()[3] for row in rows] == ["running"] * 2 + ["queued"] * 3
        assert all(len(row) <= 80 for row in shown.stdout.splitlines())
        assert "5 jobs: " in shown.stderr
        cut = mesh.call("jobs", "--limit", "1")
        assert len(cut.stdout.splitlines()) == 2
        assert "1 are shown, and 4 more; --limit shows more" in cut.stderr
        running = rows[0].split()[0]
        life = " ".join(mesh.call("job", running, "--tenant", "acme").stdout.split())
        assert re.search(r"state running, attempt 1 on w-\w+, \d+ tokens?, last event \d\S* ago", life)
        assert listed(mesh, "--tier", "batch") == []
        for job in made:
            job.cancel()


def test_the_states_of_the_help_are_those_there_are() -> None:
    assert sorted(jobs.STATES) == sorted(STATES)


def test_wrong_filters_are_refused(mesh: Cli) -> None:
    assert mesh.call("jobs", "--state", "asleep").returncode == 2
    assert mesh.call("jobs", "--tenant", "a.b").returncode == 3


def test_a_jobs_life_is_shown_without_its_prompt_within_80_columns(mesh: Cli) -> None:
    with library.blocking.connect(mesh.url) as client:
        more: dict[str, Any] = {
            "max_tokens": 30,
            "ignore_eos": True,
            "stream": True,
            "metadata": {"note": "a long one " * 20},
        }
        client.generate("sim", "A secret of \x1b[31m red", id="told", **more)
    shown = mesh.screen("job", "told")
    assert shown.returncode == 0, shown.stderr
    assert all(len(row) <= 80 for row in shown.stdout.splitlines())
    assert "state     finished\n" in shown.stdout
    assert "        +0 ms  the request was stored\n" in shown.stdout
    assert "tokens 2-30 in " in shown.stdout
    assert "Result: finished\n" in shown.stdout
    assert "secret" not in shown.stdout
    assert "`mesh result told` prints its output." in shown.stderr
    every = mesh.call("job", "told", "--events").stdout
    assert every.count("  token") > shown.stdout.count("  token")
    life = json.loads(mesh.call("job", "told", "--json").stdout)
    assert (life["status"], life["attempts"][0]["tokens"], life["prompt"]) == ("finished", 30, None)


def test_a_job_that_waits_says_what_for(mesh: Cli) -> None:
    with library.blocking.connect(mesh.url, tenant="acme") as client:
        made = [client.submit("sim", "A \x1b[31m secret", id=f"w{n}", **LONG) for n in range(6)]
        wait_until(lambda: "slots taken" in mesh.call("job", "w5", "--tenant", "acme").stdout, "the worker is full")
        shown = mesh.call("job", "w5", "--tenant", "acme", "--prompt")
        assert "state     queued\n" in shown.stdout
        assert "it waits:\n" in shown.stdout
        assert "it expires in" in shown.stdout
        assert "prompt:\n  A \ufffd[31m secret\n" in shown.stdout
        assert "`mesh tail w5 --tenant acme` follows its output" in shown.stderr
        waits = json.loads(mesh.call("job", "w5", "--tenant", "acme", "--json").stdout)["waits"]
        assert {"full", "deadline"} <= {each["code"] for each in waits}
        for job in made:
            job.cancel()


def test_an_unknown_job_is_exit_1_and_says_so(mesh: Cli) -> None:
    unknown = mesh.run("job", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "job nobody of tenant default is not known" in unknown.stderr
    assert mesh.call("job", "no.token").returncode == 3
