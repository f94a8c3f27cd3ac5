"""What a worker of a supervisor is started with. Pure."""

from mesh.cli.option_values import EngineChoice
from mesh.cli.serve.worker_processes import WorkerSpec
from mesh.hosting.supervisor import Member, describe


def test_exit_codes_in_words() -> None:
    assert [describe(code) for code in (5, -9, -15)] == ["exit code 5", "SIGKILL", "SIGTERM"]


def test_the_command_line_of_a_worker_says_what_is_chosen_and_no_more() -> None:
    choice = EngineChoice("simulator", None, None, ("capacity=2", "start_ms=0"), 100, None)
    argv = WorkerSpec("nats://127.0.0.1:1", choice, "sim").argv(Member(1))
    assert argv[argv.index("--max-model-len") + 1] == "100"
    assert argv.count("--engine-arg") == 2
    assert "--model" not in argv
