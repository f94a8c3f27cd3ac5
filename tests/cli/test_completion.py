"""What Tab offers: commands and options always, names of the mesh while it answers, and never an error."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import click
import pytest

import mesh as library
from mesh.cli.setup.completion_action import BOUND_S, ask
from mesh.server import free_port
from tests.cli.conftest import ROOT, Cli, wait_until

START_S = 20.0  # for the process itself, on a busy machine


@pytest.fixture
def served(mesh: Cli) -> Cli:
    """`mesh` where model `chat` is declared and tenant `acme` has a job that waits."""
    assert mesh.call("init", "--apply", "--model", "chat").returncode == 0
    with library.blocking.connect(mesh.url, tenant="acme") as client:
        client.submit("chat", "Hello", deadline_unix_ms=2_000_000_000_000)
    return mesh


def offered(cli: Cli, line: str, **environment: str) -> list[str]:
    """What bash would offer at the end of `line`."""
    words = line.split(" ")
    variables = {"_MESH_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    ended = cli.run(env=variables | environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [each.partition(",")[2] for each in ended.stdout.splitlines() if each]


def test_commands_and_options_are_offered_without_a_mesh(cli: Cli) -> None:
    assert {"pause", "resume", "drain", "doctor"} <= set(offered(cli, "mesh "))
    assert offered(cli, "mesh dra") == ["drain"]
    assert "--for" in offered(cli, "mesh pause --")
    assert offered(cli, "mesh dlq re") == ["redrive"]
    assert offered(cli, "mesh submit --tier i") == ["interactive"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("mesh pause ch", ["chat"]),
        ("mesh pause chat/", ["chat/interactive", "chat/standard", "chat/batch"]),
        ("mesh drain --model ", ["chat"]),
        ("mesh generate --model c", ["chat"]),
        ("mesh cancel --tenant ", ["acme", "default"]),
        ("mesh drain ", []),
        ("mesh pause zz", []),
        ("mesh drain --namespace void ", []),
    ],
)
def test_names_of_the_mesh_are_offered_where_they_are_wanted(served: Cli, line: str, names: list[str]) -> None:
    assert offered(served, line) == names


def test_workers_alive_are_offered(mesh: Cli) -> None:
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "sim", "--worker-id", "gpu-1")
    worker.wait_for(" ready: ")
    assert offered(mesh, "mesh drain g") == ["gpu-1"]
    assert offered(mesh, f"mesh drain --nats {mesh.url} g", MESH_NATS="nats://127.0.0.1:1") == ["gpu-1"]


def test_a_mesh_that_is_away_costs_no_word_and_a_second_at_most(cli: Cli) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    assert offered(cli, "mesh pause ", MESH_NATS=url) == []
    with socket.socket() as mute:  # accepts, and never says a word
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"nats://127.0.0.1:{mute.getsockname()[1]}"
        fastest = min(timed(cli, MESH_NATS=url) for _ in range(2))
    assert fastest < BOUND_S + START_S / 4


def test_a_server_that_hangs_once_it_is_connected_costs_a_second_at_most() -> None:
    """Also closing the connection waits for it, and nobody waits for that."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=greet_and_hang, args=(listener,), name="mesh-hang", daemon=True).start()
        context = click.Context(click.Command("pause"))
        context.params = {"nats": (f"nats://127.0.0.1:{listener.getsockname()[1]}",)}
        began_s = time.monotonic()
        assert ask(context, "models") == []
        assert time.monotonic() - began_s < BOUND_S + 0.5
        hanging = {"mesh-complete", "mesh-hang"}
        wait_until(lambda: not hanging & {each.name for each in threading.enumerate()}, "it closed in the end")


def greet_and_hang(listener: socket.socket) -> None:
    """A NATS that greets, answers the first PING, and then says no more."""
    with contextlib.suppress(OSError), listener.accept()[0] as client:
        client.sendall(b'INFO {"version":"2.15.1","max_payload":1048576,"headers":true,"proto":1}\r\n')
        while b"PING" not in client.recv(4096):
            pass
        client.sendall(b"PONG\r\n")
        while client.recv(4096):
            pass


def timed(cli: Cli, **environment: str) -> float:
    began_s = time.monotonic()
    assert offered(cli, "mesh pause ", **environment) == []
    return time.monotonic() - began_s


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_that_shells_own(cli: Cli, shell: str) -> None:
    printed = cli.run("completion", shell)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert f"_MESH_COMPLETE={shell}_complete" in printed.stdout
    checker = shutil.which(shell)
    if checker is not None:
        subprocess.run([checker, "-n"], input=printed.stdout, text=True, check=True)


def test_bash_itself_completes_with_it(served: Cli) -> None:
    command = served.folder / "mesh"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mesh "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(mesh completion bash)"; COMP_WORDS=(mesh pause c); COMP_CWORD=2; '
        "_mesh_completion mesh; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = served.environment(PATH=f"{served.folder}:/usr/bin:/bin", PYTHONPATH=str(ROOT))
    ended = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=START_S * 2
    )
    assert ended.stdout.split() == ["chat"], ended.stderr
