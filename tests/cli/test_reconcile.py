"""What keeps a mesh in order while no worker is there: `mesh reconcile`, and `mesh up` itself."""

import os
import re
import signal
import time

import mesh as library
from tests.cli.conftest import Cli
from tests.cli.up import UP, url_of

LEASE_S = 300


def test_a_job_expires_in_time_although_no_worker_was_ever_there(mesh: Cli) -> None:
    mesh.run("init", "--apply", "--model", "simulator")
    watch = mesh.spawn("reconcile")
    watch.wait_for(" ready: mesh mesh is reconciled")
    ended = mesh.run("generate", "--model", "simulator", "--deadline", "0.5", "Hello")
    assert ended.returncode == 1
    assert "deadline passed" in ended.stderr
    watch.send(signal.SIGTERM)
    assert watch.wait() == 0


def test_watching_what_is_no_mesh_says_how_to_make_one(mesh: Cli) -> None:
    ended = mesh.run("reconcile", "--namespace", "void")
    assert ended.returncode == 3
    assert "mesh init" in ended.stderr


def test_a_lone_worker_that_is_killed_loses_no_time_with_mesh_up(cli: Cli) -> None:
    up = cli.spawn(*UP, "0", "--ack-wait", str(LEASE_S), "--engine-arg", "between_tokens_ms=20")
    url = url_of(up)
    up.wait_for("Ctrl-C drains and ends it.")
    with library.blocking.connect(url) as client:
        job = client.submit("simulator", "Tell me of the sea", id="victim", max_tokens=400, temperature=0)
        for _ in job:
            break
        os.kill(int(re.findall(r"worker 1 starts \(pid (\d+)\)", up.out)[0]), signal.SIGKILL)
        result = job.result(timeout=LEASE_S / 10)
    assert (result.status, result.attempts) == ("finished", 2)
    up.send(signal.SIGTERM)
    assert up.wait() == 0


def test_mesh_up_ends_what_expires_while_its_worker_is_dead(cli: Cli) -> None:
    up = cli.spawn(*UP, "0", "--engine-arg", "start_ms=60000")
    url = url_of(up)
    up.wait_for("mesh ready: ")
    with library.blocking.connect(url) as client:
        job = client.submit("simulator", "Hello", deadline_unix_ms=int(time.time() * 1000) + 500)
        result = job.result(timeout=20)
    assert result.status == "expired"
    up.send(signal.SIGTERM)
    assert up.wait() == 0
