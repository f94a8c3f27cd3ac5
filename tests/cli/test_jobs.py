"""`mesh jobs`, `mesh job` and `mesh tail`: tables, lives, live tokens, exit codes."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import mesh as library
from mesh.cli.commands import jobs
from mesh.control.standing import STATES
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
        made = [client.submit("sim", f"{n}", id=f"a-long-name-for-a-job-{n}", **LONG) for n in range(5)]
        wait_until(lambda: len(listed(mesh, "--state", "running")) == 2, "two run")
        shown = mesh.call("jobs", "--tenant", "acme")
        title, *rows = shown.stdout.splitlines()
        assert title.split() == ["job", "tenant", "model/tier", "state", "age", "left", "try", "tokens", "worker"]
        assert [row.split()[3] for row in rows] == ["running"] * 2 + ["queued"] * 3
        assert all(len(row) <= 80 for row in shown.stdout.splitlines())
        assert "5 jobs: " in shown.stderr
        cut = mesh.call("jobs", "--limit", "1")
        assert len(cut.stdout.splitlines()) == 2
        assert "1 are shown, and 4 more; --limit shows more" in cut.stderr
        assert listed(mesh, "--tier", "batch") == []
        for job in made:
            job.cancel()


def test_the_states_of_the_help_are_those_there_are() -> None:
    assert sorted(jobs.STATES) == sorted(STATES)


def test_wrong_filters_are_refused(mesh: Cli) -> None:
    assert mesh.call("jobs", "--state", "asleep").returncode == 2
    assert mesh.call("jobs", "--tenant", "a.b").returncode == 3
