"""`mesh up`: data that stays, workers that come back, and nothing left behind."""

import os
import re
import signal

import mesh as library
from mesh.server import free_port
from tests.cli.conftest import Cli, wait_until
from tests.cli.up import UP, url_of


def test_data_is_kept_across_a_restart(cli: Cli) -> None:
    up = cli.spawn(*UP, "0", "--lanes", "2")
    url = url_of(up)
    up.wait_for("Ctrl-C drains and ends it.")
    with library.blocking.connect(url) as client:
        first = client.generate("simulator", "Hello", id="kept", max_tokens=3)
    refused = cli.run(*UP, "0")
    assert refused.returncode == 3
    assert "in use by another `mesh up`" in refused.stderr
    up.send(signal.SIGTERM)
    assert up.wait() == 0
    assert "worker 1 ended\n" in up.out
    cli.wait_gone()

    again = cli.spawn(*UP, url.rpartition(":")[2])
    again.wait_for("mesh ready: 0 of 12 ")
    again.wait_for("Ctrl-C drains and ends it.")
    with library.blocking.connect(url) as client:
        assert client.result("kept").text == first.text
    assert "differs" not in again.err
    again.send(signal.SIGINT)
    assert again.wait() == 0
    cli.wait_gone()


def test_a_worker_that_is_killed_is_started_again(cli: Cli) -> None:
    up = cli.spawn(*UP, "0", "--workers", "2")
    up.wait_for("Ctrl-C drains and ends it.")
    pid = int(re.findall(r"worker 1 starts \(pid (\d+)\)", up.out)[0])
    os.kill(pid, signal.SIGKILL)
    up.wait_for("worker 1 died (SIGKILL); starting it again in 0.5 s")
    up.wait_for(" ready: model simulator", count=3)
    # The end of `mesh up` is the end of everything, however it comes.
    assert len(cli.processes()) == 4
    up.send(signal.SIGKILL)
    cli.wait_gone()


def test_a_nats_server_that_is_killed_is_started_again(cli: Cli) -> None:
    up = cli.spawn(*UP, "0")
    up.wait_for("Ctrl-C drains and ends it.")
    (pid,) = cli.processes("nats-server -c")
    os.kill(pid, signal.SIGKILL)
    up.wait_for("nats-server died (SIGKILL)")
    up.wait_for("nats-server ready: ", count=2)
    up.send(signal.SIGINT)
    assert up.wait() == 0
    cli.wait_gone()


def test_a_worker_that_cannot_start_ends_it_with_3(cli: Cli) -> None:
    ended = cli.run(*UP, "0", "--engine-arg", "capacitty=1")
    assert ended.returncode == 3
    assert "did you mean capacity?" in ended.stderr
    cli.wait_gone()


def test_a_port_in_use_is_refused(mesh: Cli) -> None:
    ended = mesh.run(*UP, mesh.url.rpartition(":")[2])
    assert ended.returncode == 3
    assert "--port" in ended.stderr
    mesh.wait_gone()


def test_a_signal_during_the_start_leaves_nothing(cli: Cli) -> None:
    up = cli.spawn(*UP, str(free_port()), "--engine-arg", "start_ms=60000")
    up.wait_for("worker 1 starts")
    wait_until(lambda: cli.processes("--leash"), "the worker is there")
    up.send(signal.SIGTERM)
    assert up.wait() == 0
    cli.wait_gone()
