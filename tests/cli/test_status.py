"""`mesh status`: tables, findings, JSON, exit codes."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

import mesh as library
from mesh.cli.health import status_action
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.table import TextTable
from mesh.control.status.checks import findings
from mesh.control.status.depth import QueueDepth, TenantDepth
from tests.cli.conftest import Cli, wait_until
from tests.unit.control.samples import NAMES, snapshot

SLOW = ("--engine-arg", "between_tokens_ms=50", "--capacity", "2")


@pytest.fixture
def worker(mesh: Cli) -> Iterator[Cli]:
    """`mesh` with a slow worker of two slots, called w-one."""
    running = mesh.spawn("worker", "--engine", "simulator", "--name", "sim", *SLOW)
    running.wait_for(" ready: ")
    yield mesh
    running.send(signal.SIGTERM)
    running.wait()


def test_a_mesh_with_nothing_to_do_is_shown_within_80_columns(mesh: Cli) -> None:
    shown = mesh.screen("status")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("nats     ")
    assert all(len(row) <= 80 for row in shown.stdout.splitlines())
    assert "MESH_REQUESTS" in shown.stdout


def test_what_waits_and_runs_is_shown_by_queue_with_rates(worker: Cli) -> None:
    with library.blocking.connect(worker.url, tenant="acme") as client:
        jobs = [client.submit("sim", f"{n}", max_tokens=1000, ignore_eos=True) for n in range(5)]
        wait_until(lambda: report(worker, "--no-rates")["snapshot"]["workers"][0]["presence"]["running"] == 2, "full")
        seen = report(worker)
        (queue,) = [each for each in seen["snapshot"]["queues"] if each["tier"] == "standard" and each["jobs"]]
        assert (queue["model"], queue["jobs"], queue["waiting"] + queue["in_flight"]) == ("sim", 5, 5)
        assert queue["tenants"] == [{"tenant": "acme", "jobs": 5, "fullest": queue["tenants"][0]["fullest"]}]
        assert seen["rates"]["workers"][0]["tokens_per_s"] > 0
        shown = worker.screen("status", "--no-rates").stdout
        assert "sim/standard" in shown
        assert "acme 5" in shown
        assert all(len(row) <= 80 for row in shown.splitlines())
        for job in jobs:
            client.job(job.id).cancel()


def test_a_queue_without_a_worker_is_broken_and_check_exits_with_1(mesh: Cli) -> None:
    assert mesh.call("init", "--apply", "--model", "sim").returncode == 0
    with library.blocking.connect(mesh.url) as client:
        wait_until(lambda: not report(mesh, "--no-rates")["snapshot"]["workers"], "the worker before is gone")
        assert mesh.call("status", "--no-rates", "--check").returncode == 0
        client.submit("sim", "Hello", id="lonely", deadline_unix_ms=1)
        shown = mesh.call("status", "--no-rates", "--check")
    assert shown.returncode == 1
    assert "!! 1 job of sim/standard and no worker of that model  ->  mesh worker --name sim\n" in shown.stdout
    assert mesh.call("status", "--no-rates").returncode == 0
    assert [each["code"] for each in report(mesh, "--no-rates")["findings"]] == ["no_worker"]


def test_no_nats_is_exit_4_and_no_mesh_exit_3(cli: Cli, mesh: Cli) -> None:
    nowhere = cli.call("status", "--nats", "nats://127.0.0.1:9")
    assert (nowhere.returncode, nowhere.stdout) == (4, "")
    other = mesh.call("status", "--namespace", "other")
    assert (other.returncode, other.stdout) == (3, "")
    assert "no mesh on this NATS" in other.stderr


def test_long_names_and_many_tenants_fit_and_steer_no_terminal() -> None:
    tenants = [TenantDepth(tenant=f"tenant-{n}\x1b[31m", jobs=10**5, fullest=1) for n in range(300)]
    queue = QueueDepth(model="m" * 64, tier="standard", jobs=10**7, waiting=10**7, in_flight=10**5, tenants=tenants)
    server = replace(snapshot().server, name="n" * 90)
    seen = replace(snapshot(), queues=[queue] * 100, server=server, missing=["s" * 60])
    report = status_action.StatusReport(snapshot=seen, rates=None, findings=findings(seen, NAMES))
    told = list(status_action.parts(report, 80))
    lines = [part for part in told if isinstance(part, str)]
    assert all(len(line) <= 80 for line in lines if "->" not in line)  # a command is never cut
    assert "… and 60 more; --json has them all" in lines
    assert f"!! {'s' * 60} is missing" in lines
    assert "   ->  mesh init" in lines
    assert "\x1b" not in "".join(lines)
    table = next(part for part in told if isinstance(part, TextTable))
    assert len(table.rows) == 40
    whole = next(part for part in status_action.parts(report, render.UNLIMITED) if isinstance(part, TextTable))
    assert len(whole.rows) == 100


def test_figures_are_short() -> None:
    assert [figures.count(each) for each in (9999, 12_345, 3 * 10**6, 4 * 10**9)] == ["9999", "12k", "3M", "4G"]
    assert [figures.size(each) for each in (0, 999, 1500, 20 << 20, 1 << 30)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "21.0 MB",
        "1.1 GB",
    ]
    spans = [figures.span(each) for each in (-5, 340, 4290, 42_000, 7 * 60_000, 3 * 3_600_000, 12 * 86_400_000)]
    assert spans == ["0ms", "340ms", "4.2s", "42s", "7m", "3h", "12d"]
    assert [figures.rate(each) for each in (None, 12.34, 340.5, 12_345.0)] == ["-", "12.3/s", "340/s", "12k/s"]
    assert [figures.many(each, "job") for each in (1, 10_000)] == ["1 job", "10,000 jobs"]


def report(mesh: Cli, *arguments: str) -> dict[str, Any]:
    shown = mesh.call("status", "--json", *arguments)
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found
