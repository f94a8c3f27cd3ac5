"""When a process is started again, and when no more. Pure."""

from mesh.cli.act.crew import QUICK_S, Backoff, Post, describe
from mesh.cli.options import EngineChoice


def test_quick_deaths_double_the_pause_and_the_fifth_ends_it() -> None:
    backoff = Backoff()
    assert [backoff.died(0) for _ in range(5)] == [0.5, 1, 2, 4, None]


def test_a_worker_that_lived_starts_the_count_anew() -> None:
    backoff = Backoff()
    for _ in range(50):
        assert backoff.died(QUICK_S + 1) == 0.5
    assert backoff.died(1) == 1


def test_exit_codes_in_words() -> None:
    assert [describe(code) for code in (5, -9, -15)] == ["exit code 5", "SIGKILL", "SIGTERM"]


def test_the_command_line_of_a_worker_says_what_is_chosen_and_no_more() -> None:
    choice = EngineChoice("simulator", None, None, ("capacity=2", "start_ms=0"), 100, None)
    argv = Post("nats://127.0.0.1:1", choice, "sim").argv()
    assert argv[argv.index("--max-model-len") + 1] == "100"
    assert argv.count("--engine-arg") == 2
    assert "--model" not in argv
