"""`mesh generate`, `chat`, `submit`, `result`, `cancel`, `workers`: against one worker."""

import json
import signal
from collections.abc import Iterator

import pytest

import mesh as library
from tests.cli.conftest import Cli, wait_until

LONG = ("--max-tokens", "8000", "--seed", "3")  # minutes


@pytest.fixture(scope="module", autouse=True)
def worker(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[None]:
    """The one worker of this module's tests."""
    cli = Cli(tmp_path_factory.mktemp("worker"), nats_url)
    running = cli.spawn("worker", "--engine", "simulator", "--name", "sim", "--engine-arg", "between_tokens_ms=10")
    running.wait_for(" ready: ")
    yield
    running.send(signal.SIGKILL)
    running.wait()


def test_generate_streams_the_answer_and_counts_on_stderr(mesh: Cli) -> None:
    ended = mesh.run("generate", "--max-tokens", "12", "--seed", "7", "Hello there")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("\n")
    assert "[sim, 12 tokens, first after" in ended.stderr
    asked = mesh.call(
        "generate", "-", "--model", "sim", "--max-tokens", "12", "--seed", "7", "--json", stdin="Hello there\n"
    )
    result = json.loads(asked.stdout)
    assert (result["status"], result["text"]) == ("finished", ended.stdout[:-1])
    assert asked.stderr == ""


def test_generate_takes_its_options_from_the_environment(mesh: Cli) -> None:
    env = {"MESH_MODEL": "some/where/sim", "MESH_MAX_TOKENS": "5", "MESH_JSON": "1", "MESH_RAW_PROMPT": "1"}
    result = json.loads(mesh.call("generate", "Hello", env=env).stdout)
    assert result["usage"]["completion_tokens"] == 5


def test_a_job_that_fails_is_exit_1(mesh: Cli) -> None:
    ended = mesh.call("generate", "--deadline", "0.001", "--no-stream", "Hello")
    assert ended.returncode == 1
    assert ended.stderr.startswith("mesh: job j")
    assert "expired" in ended.stderr


def test_an_unknown_model_names_those_there_are(mesh: Cli) -> None:
    ended = mesh.call("generate", "--model", "nope", "Hello")
    assert ended.returncode == 3
    assert "there are: sim" in ended.stderr


def test_ctrl_c_cancels_what_was_asked(mesh: Cli) -> None:
    asking = mesh.spawn("generate", *LONG, "--raw-prompt", "Hello")
    wait_until(lambda: len(asking.out) > 20, "the answer streams")
    asking.send(signal.SIGINT)
    assert asking.wait() == 130
    assert "is cancelled" in asking.err
    assert "Traceback" not in asking.err


def test_a_job_is_submitted_followed_read_and_cancelled(mesh: Cli) -> None:
    submitted = mesh.run("submit", "--id", "long-1", *LONG, "--tier", "batch", "Hello")
    assert submitted.stdout == "long-1\n"
    assert "mesh result long-1" in submitted.stderr
    early = mesh.call("result", "long-1")
    assert early.returncode == 1
    assert "--wait" in early.stderr
    following = mesh.spawn("result", "long-1", "--follow")
    wait_until(lambda: len(following.out) > 20, "the answer streams")
    cancelled = mesh.run("cancel", "long-1")
    assert (cancelled.returncode, cancelled.stdout) == (0, "job long-1 is cancelled\n")
    assert following.wait() == 1
    assert "cancelled" in following.err
    stored = mesh.call("result", "long-1", "--json")
    assert stored.returncode == 1
    assert json.loads(stored.stdout)["status"] == "cancelled"
    assert json.loads(stored.stdout)["text"] + "\n" == following.out


def test_a_result_is_awaited(mesh: Cli) -> None:
    with library.blocking.connect(mesh.url) as client:
        id = client.submit("sim", "Hello", max_tokens=100, ignore_eos=True).id
    assert mesh.call("result", id, "--wait", "0.01").returncode in (0, 1)
    ended = mesh.run("result", id, "--wait")
    assert ended.returncode == 0
    assert "100 tokens" in ended.stderr
    again = mesh.call("cancel", id)
    assert (again.returncode, again.stdout) == (0, f"job {id} had finished already\n")


@pytest.mark.parametrize("arguments", [["result"], ["result", "--follow"], ["cancel"]])
def test_an_unknown_job_is_exit_1(mesh: Cli, arguments: list[str]) -> None:
    ended = mesh.call(*arguments, "never-submitted")
    assert ended.returncode == 1
    assert "never-submitted" in ended.stderr


def test_chat_keeps_its_history_until_it_is_cleared(mesh: Cli) -> None:
    turns = "Hello\n/help\n\nAnd then?\n/clear\nHello\n/exit\nnever asked\n"
    ended = mesh.run("chat", "--max-tokens", "4", "--seed", "1", stdin=turns)
    assert ended.returncode == 0, ended.stderr
    first, second, third = ended.stdout.splitlines()
    assert first == third
    assert first != second
    assert "the conversation is forgotten" in ended.stderr


def test_workers_fit_a_narrow_terminal(mesh: Cli) -> None:
    shown = mesh.screen("workers")
    title, row = shown.stdout.splitlines()
    assert title.split() == [
        "worker",
        "model",
        "state",
        "engine",
        "jobs",
        "lanes",
        "done",
        "tokens",
        "host",
        "pid",
        "up",
    ]
    assert "ready" in row
    assert max(len(title), len(row)) <= 80
    (worker,) = json.loads(mesh.call("workers", "--json").stdout)["workers"]
    assert (worker["model"], worker["state"]) == ("sim", "ready")


def test_workers_of_a_mesh_without_any(mesh: Cli) -> None:
    assert mesh.call("init", "--namespace", "empty", "--apply").returncode == 0
    shown = mesh.call("workers", "--namespace", "empty")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "mesh up" in shown.stderr
