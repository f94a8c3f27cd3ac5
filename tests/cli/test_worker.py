"""`mesh worker`: ready, drained, hurried, stopped while it loads."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import mesh as library
from mesh.server import free_port
from tests.cli.conftest import Cli, wait_until

SLOW = ("--engine-arg", "between_tokens_ms=50")


def test_the_simulator_alone_is_enough(mesh: Cli) -> None:
    worker = mesh.spawn("worker", "--engine", "simulator", "--nats", mesh.url)
    worker.wait_for(" ready: ")
    assert re.fullmatch(r"worker w-[0-9a-f]{8} ready: model simulator, engine simulator 1, capacity 64\n", worker.out)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    mesh.wait_gone()


def test_sigterm_lets_a_running_job_finish(mesh: Cli) -> None:
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "drained", *SLOW, "--worker-id", "w-drained")
    worker.wait_for("worker w-drained ready: model drained")
    with library.blocking.connect(mesh.url) as client:
        job = client.submit("drained", "hi", max_tokens=40, ignore_eos=True)
        next(iter(job))
        worker.send(signal.SIGTERM)
        result = job.result(20)
    assert worker.wait() == 0
    assert (result.status, result.usage.completion_tokens, result.attempts) == ("finished", 40, 1)


def test_a_second_signal_hands_the_job_over_at_once(mesh: Cli) -> None:
    name = ("--engine", "simulator", "--name", "hurried")
    worker = mesh.spawn("worker", *name, "--engine-arg", "between_tokens_ms=200")
    worker.wait_for(" ready: ")
    with library.blocking.connect(mesh.url) as client:
        job = client.submit("hurried", "hi", max_tokens=200, ignore_eos=True)
        next(iter(job))
        worker.send(signal.SIGTERM)
        wait_until(lambda: "stopping" in worker.err, "the first signal is heard")
        start_s = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert time.monotonic() - start_s < 8
        other = mesh.spawn("worker", *name)
        other.wait_for(" ready: ")
        result = job.result(20)
    assert (result.status, result.usage.completion_tokens, result.attempts) == ("finished", 200, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_loads_ends_it_at_once(mesh: Cli, number: int) -> None:
    worker = mesh.spawn("worker", "--engine", "simulator", "--engine-arg", "start_ms=60000")
    wait_until(lambda: "loads" in worker.err, "it loads")
    worker.send(number)
    assert worker.wait(5) == 0
    assert "Traceback" not in worker.err
    mesh.wait_gone()


def test_without_a_mesh_it_says_how_to_make_one(mesh: Cli) -> None:
    ended = mesh.run("worker", "--engine", "simulator", "--namespace", "nowhere")
    assert ended.returncode == 3
    assert "mesh init" in ended.stderr


def test_options_come_from_the_environment(mesh: Cli) -> None:
    env = {"MESH_ENGINE": "simulator", "MESH_NAME": "env", "MESH_CAPACITY": "3", "MESH_WORKER_ID": "w-env"}
    worker = mesh.spawn("worker", env=env)
    worker.wait_for("worker w-env ready: model env, engine simulator 1, capacity 3")


def test_a_program_that_has_run_a_worker_starts_processes_as_before(cli: Cli) -> None:
    """Children of a worker are set apart, and only while it serves: a leader of a group can begin no session."""
    ended = cli.call("worker", "--engine", "simulator", "--nats", f"nats://127.0.0.1:{free_port()}", "--model", "m")
    assert ended.returncode == 4, ended.stderr
    child = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True, preexec_fn=os.getpid)
    assert child.wait(30) == 0
