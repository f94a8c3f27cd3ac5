"""`mesh bench`: load on a running mesh, as an operator puts it there."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def served(mesh: Cli) -> Cli:
    """A mesh with a quick simulator."""
    args = ("--engine-arg", "first_token_ms=2", "--engine-arg", "between_tokens_ms=1")
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "demo", *args)
    worker.wait_for("ready")
    return mesh


def test_closed_loop_load_gives_a_table_a_json_file_and_a_picture(served: Cli, tmp_path: Path) -> None:
    json_file, picture = tmp_path / "run.json", tmp_path / "run.svg"
    args = ("--num-prompts", "30", "--max-concurrency", "4", "--input-len", "5-20", "--output-len", "8")
    more = ("--goodput", "ttft:5000", "--json", str(json_file), "--samples", "--plot", str(picture))
    ended = served.call("bench", *args, *more)
    assert ended.returncode == 0, ended.stderr
    assert "Successful requests:                        30" in ended.stdout
    assert "Where the time went" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
    found = json.loads(json_file.read_text())
    assert (found["completed"], found["total_output_tokens"], found["max_concurrency"]) == (30, 240, 4)
    assert found["max_concurrent_requests"] <= 4
    assert len(found["ttfts"]) == 30
    assert picture.read_text().lstrip().startswith("<?xml")


def test_open_loop_load_of_several_tenants_and_tiers(served: Cli) -> None:
    args = ("--num-prompts", "20", "--request-rate", "100", "--output-len", "4", "--num-warmups", "0")
    ended = served.call("bench", *args, "--tenant", "a=1,b=1", "--tier", "interactive=1,batch=1")
    assert ended.returncode == 0, ended.stderr
    assert "Successful requests:                        20" in ended.stdout


def test_a_trace_is_sent_at_its_own_times(served: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [{"timestamp": 200 * n, "input_length": 4, "output_length": 3} for n in range(4)]
    trace.write_text("\n".join(map(json.dumps, lines)))
    ended = served.call("bench", "--dataset", str(trace), "--num-prompts", "4", "--json", str(tmp_path / "out.json"))
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "out.json").read_text())["duration"] >= 0.6


def test_requests_that_do_not_finish_are_counted_and_are_exit_code_1(served: Cli) -> None:
    ended = served.call("bench", "--num-prompts", "3", "--model", "nobody")
    assert ended.returncode == 1
    assert "3 (3 model_not_found)" in ended.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--input-len", "0"), "--input-len = '0' is not a number of tokens"),
        (("--goodput", "itl:5"), "--goodput = 'itl:5' must be"),
        (("--percentiles", "0,50"), "--percentiles = '0,50' must be whole numbers"),
        (("--plot", "run.gif"), "must end in .svg or .png"),
        (("--plot", "nowhere/run.svg"), "there is no folder nowhere"),
        (("--dataset", "nowhere.json"), "--dataset nowhere.json cannot be read"),
        (("--tier", "gold"), "'gold' is not one of"),
        (("--tenant", "a.b"), "'a.b' is not of the form"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_sent(cli: Cli, args: tuple[str, str], says: str) -> None:
    ended = cli.call("bench", *args)
    assert ended.returncode == 3
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
