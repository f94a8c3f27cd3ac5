"""Every error: one line that says what to do, and an exit code."""

import os
import signal
import time

import pytest

import mesh as library
from mesh import errors
from mesh.cli.terminal import failure
from mesh.server import free_port
from tests.cli.conftest import ROOT, Cli


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobFailedError("x", result=None, code="internal"), 1),
        (errors.JobCancelledError("x", result=None, code="cancelled"), 1),
        (errors.JobExpiredError("x", result=None, code="expired"), 1),
        (errors.ResultNotFoundError("x"), 1),
        (errors.WaitTimeoutError("x"), 1),
        (errors.QuotaExceededError("x"), 1),
        (errors.ConfigError("x"), 3),
        (errors.InvalidRequestError("x"), 3),
        (errors.ModelNotFoundError("x"), 3),
        (errors.UnauthorizedError("x"), 3),
        (errors.TopologyError("x"), 3),
        (errors.DisconnectedError("x"), 4),
        (errors.BrokerTimeoutError("x"), 4),
        (errors.UnavailableError("x"), 4),
        (errors.EngineDeadError("x"), 5),
        (KeyboardInterrupt(), 130),
        (failure.SignalledError(signal.SIGINT), 130),
        (failure.SignalledError(signal.SIGTERM), 143),
        (errors.ProtocolError("x"), 1),
    ],
)
def test_exit_code_of(error: BaseException, code: int) -> None:
    assert failure.exit_code(error) == code


def test_a_message_is_one_line() -> None:
    assert failure.message(errors.ConfigError("a\nb\n\n  c")) == "a b c"


def test_a_fault_of_mesh_says_how_to_see_where() -> None:
    assert "MESH_DEBUG=1" in failure.message(KeyError("x"))


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (errors.UnavailableError("nobody answers on $JS.API.STREAM.INFO.X"), "JetStream"),
        (errors.UnauthorizedError("refused"), "--creds"),
        (errors.UnsupportedError("no chat template", field="messages"), "--raw-prompt"),
    ],
)
def test_the_message_names_the_next_step(error: errors.MeshError, step: str) -> None:
    assert step in failure.message(error)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["worker", "--engine", "nope"], "engine 'nope' is unknown; give simulator, vllm"),
        (["worker", "--engine", "simulator", "--engine-arg", "capacitty=3"], "did you mean capacity?"),
        (["worker", "--engine", "simulator", "--name", "a.b"], "name: 'a.b' is not of the form"),
        (["worker", "--engine", "simulator", "--tier-weights", "high=3"], "does not read as interactive=N"),
        (["workers", "--creds", "/nowhere.creds"], "is not a file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_exit_3(cli: Cli, arguments: list[str], text: str) -> None:
    ended = cli.call(*arguments)
    assert ended.returncode == 3, ended.stderr
    assert text in ended.stderr
    assert ended.stderr.startswith("mesh: ")
    assert ended.stderr.count("\n") == 1


def test_no_nats_is_exit_4_and_says_where_it_looked(cli: Cli) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    start_s = time.monotonic()
    started = [
        cli.spawn("generate", "--nats", url, "hello"),
        cli.spawn("worker", "--engine", "simulator", "--engine-arg", "start_ms=60000", "--nats", url),
    ]
    for each in started:
        assert each.wait() == 4
        assert url in each.err.splitlines()[-1]
        assert each.err.splitlines()[-1].startswith("mesh: cannot reach NATS")
    assert time.monotonic() - start_s < 15  # before anything was loaded


def test_debugging_shows_the_traceback(cli: Cli) -> None:
    ended = cli.run("worker", "--engine", "nope", env={"MESH_DEBUG": "1"})
    assert ended.returncode == 3
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("mesh: engine 'nope'")


def test_an_engine_that_breaks_while_it_starts_is_exit_5(mesh: Cli) -> None:
    (mesh.folder / "breaking.py").write_text(
        "from mesh.engines.simulator.engine import SimulatorEngine\n"
        "from mesh.engines.simulator.settings import SimulatorSettings\n"
        "from mesh.errors import EngineDeadError\n\n\n"
        "class Breaking(SimulatorEngine):\n"
        "    async def start(self):\n"
        "        raise EngineDeadError('out of memory')\n\n\n"
        "def make(**settings):\n"
        "    return Breaking(SimulatorSettings())\n"
    )
    path = os.pathsep.join([str(mesh.folder), str(ROOT)])
    ended = mesh.run("worker", "--engine", "breaking:make", "--name", "mortal", env={"PYTHONPATH": path})
    assert ended.returncode == 5
    assert ended.stderr.splitlines()[-1].startswith("mesh: out of memory; ")
    assert "Traceback" not in ended.stderr


def test_an_engine_that_dies_is_started_again_in_the_same_process(mesh: Cli) -> None:
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "mortal")
    worker.wait_for(" ready: ")
    with library.blocking.connect(mesh.url) as client:
        client.submit("mortal", "hi", metadata={"simulate": {"die_after": 3}}, on_worker_loss="fail")
        worker.wait_for(" ready: ", count=2)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
