"""`mesh tail`: lines of many jobs that never mix, one job's output as it is, JSON, exit codes."""

import json
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh as library
from mesh.cli.terminal.lines import Lines
from mesh.cli.terminal.text import cells
from tests.cli.conftest import Cli, wait_until

SLOW = ("--engine-arg", "between_tokens_ms=10", "--capacity", "4")


@pytest.fixture(scope="module", autouse=True)
def worker(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[None]:
    """The one worker of this module's tests."""
    cli = Cli(tmp_path_factory.mktemp("worker"), nats_url)
    running = cli.spawn("worker", "--engine", "simulator", "--name", "sim", *SLOW)
    running.wait_for(" ready: ")
    yield
    running.send(signal.SIGKILL)
    running.wait()


def test_one_jobs_output_is_printed_as_it_is_and_its_end_told(mesh: Cli) -> None:
    with library.blocking.connect(mesh.url, tenant="acme") as client:
        job = client.submit("sim", "A story", id="one", max_tokens=40, ignore_eos=True)
        shown = mesh.run("tail", "one", "--tenant", "acme")
        text = job.result().text
    assert shown.returncode == 0, shown.stderr
    assert isinstance(text, str)
    assert shown.stdout == (text if text.endswith("\n") else f"{text}\n")
    assert "begun by w-" in shown.stderr
    assert "40 tokens" in shown.stderr


def test_one_job_as_json_is_an_event_a_line(mesh: Cli) -> None:
    with library.blocking.connect(mesh.url) as client:
        client.generate("sim", "A story", id="two", max_tokens=5, ignore_eos=True, stream=True)
    events = [json.loads(line) for line in mesh.call("tail", "two", "--json").stdout.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["started", "result"]
    assert {each["tenant"] for each in events} == {"default"}
    assert "".join(each.get("text", "") for each in events[1:-1]) == events[-1]["text"]


def test_an_unknown_job_and_one_that_failed_are_exit_1(mesh: Cli) -> None:
    unknown = mesh.call("tail", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    with library.blocking.connect(mesh.url) as client:
        client.generate("sim", "A story", id="bad", metadata={"simulate": {"fail": True}}, max_tokens=3)
    failed = mesh.call("tail", "bad")
    assert failed.returncode == 1
    assert "job bad failed" in failed.stderr


def test_jobs_of_a_tenant_are_followed_in_lines_that_do_not_mix(mesh: Cli) -> None:
    tail = mesh.spawn("tail", "--tenant", "acme")
    wait_until(lambda: "following the jobs of tenant acme" in tail.err, "it listens")
    with library.blocking.connect(mesh.url, tenant="acme") as client:
        jobs = [client.submit("sim", f"{n}", id=f"many-{n}", max_tokens=60, ignore_eos=True) for n in range(3)]
        texts = {job.id: job.result().text for job in jobs}
    tail.wait_for("* finished", count=3)
    tail.send(signal.SIGINT)
    assert tail.wait() == 130
    lines = tail.out.splitlines()
    assert all(line.startswith("[many-") for line in lines)
    for job, text in texts.items():
        mine = [line.removeprefix(f"[{job}] ") for line in lines if line.startswith(f"[{job}] ")]
        assert mine[0].startswith("* begun by w-")
        assert mine[-1].startswith("* finished, 60 tokens, ")
        assert isinstance(text, str)
        assert "".join(mine[1:-1]).replace(" ", "") == "".join(text.split())


def test_all_tenants_are_followed_as_json(mesh: Cli) -> None:
    tail = mesh.spawn("tail", "--all-tenants", "--json")
    wait_until(lambda: "following the jobs of all tenants" in tail.err, "it listens")
    for tenant in ("acme", "other"):
        with library.blocking.connect(mesh.url, tenant=tenant) as client:
            client.generate("sim", "x", max_tokens=3, stream=True)
    tail.wait_for('"type":"result"', count=2)
    assert {json.loads(line)["tenant"] for line in tail.out.splitlines()} == {"acme", "other"}


@pytest.mark.parametrize("arguments", [("x", "--all-tenants"), ("--all-tenants", "--tenant", "a")])
def test_contradictions_are_wrong_usage(mesh: Cli, arguments: tuple[str, ...]) -> None:
    assert mesh.call("tail", *arguments).returncode == 2


def test_long_texts_are_broken_at_spaces_and_short_ones_wait_for_more() -> None:
    lines = Lines(30)
    assert lines.add("a", "short ") == []
    assert lines.add("b", "other\n") == ["[b] other"]
    assert lines.add("a", "and then much longer than a line") == ["[a] short and then much"]
    assert lines.end("a", "finished") == ["[a] longer than a line", "[a] * finished"]
    assert lines.end("a") == []


def test_a_text_to_which_nothing_comes_is_shown_up_to_its_last_whole_word() -> None:
    lines = Lines(80)
    lines.add("a", "one two thr")
    assert lines.idle() == []  # something came since the last look
    assert lines.idle() == ["[a] one two"]
    assert lines.idle() == []
    assert lines.end("a") == ["[a] thr"]


def test_what_steers_a_terminal_does_not_reach_it() -> None:
    assert Lines(80).add("a", "\x1b[31mred\r\n") == ["[a] \ufffd[31mred"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("xy \n漢", max_size=30)), max_size=20), st.integers(24, 60))
def test_no_text_is_lost_or_mixed_and_no_line_is_wider_than_asked(steps: list[tuple[str, str]], columns: int) -> None:
    lines, whole, shown = Lines(columns), {"a": "", "b": ""}, list[str]()
    for name, text in steps:
        whole[name] += text
        shown += lines.add(name, text)
        shown += lines.idle() if len(text) % 7 == 3 else []
    shown += [*lines.end("a"), *lines.end("b")]
    for name, text in whole.items():
        told = "".join(line.removeprefix(f"[{name}] ") for line in shown if line.startswith(f"[{name}]"))
        assert "".join(told.split()) == "".join(text.split())
    assert all(cells(line) <= columns for line in shown)
