"""`mesh dlq`: lists, one letter in full, dry runs and their application, exit codes."""

import asyncio
import json
import re
import signal
import uuid
from collections.abc import Iterator

import click
import pytest

import mesh as library
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.cli.deadletters import dlq
from mesh.protocol import headers
from tests.cli.conftest import Cli, wait_until

MENDED = {"simulate": {"fail": True, "times": 3}}  # all the attempts a job has, and then no more
SUBCOMMANDS = ("ls", "show", "redrive", "drop")


@pytest.fixture(scope="module", autouse=True)
def worker(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[None]:
    """The one worker of this module's tests."""
    cli = Cli(tmp_path_factory.mktemp("worker"), nats_url)
    running = cli.spawn("worker", "--engine", "simulator", "--name", "sim")
    running.wait_for(" ready: ")
    yield
    running.send(signal.SIGKILL)
    running.wait()


@pytest.fixture
def ids() -> tuple[str, str]:
    """The ids of two jobs: one as a client makes it up, and a short one."""
    made = f"j{uuid.uuid4().hex}"
    return made, f"one-{made[-6:]}"


@pytest.fixture
def buried(mesh: Cli, ids: tuple[str, str]) -> Iterator[Cli]:
    """`mesh` where tenant `t` has two dead letters, those of `ids`; none afterwards."""
    with library.blocking.connect(mesh.url, tenant="t") as client:
        for job in ids:
            prompt = "A story of \x1b[31m red"
            result = client.generate("sim", prompt, id=job, metadata=MENDED, max_tokens=3, stream=True)
            assert result.status == "failed"
    wait_until(lambda: planned(mesh, "redrive", "--all") == {"redrive": 2}, "the worker let go of both")
    yield mesh
    mesh.call("dlq", "drop", "--all", "--apply")


def planned(mesh: Cli, *arguments: str) -> dict[str, int]:
    counts: dict[str, int] = json.loads(mesh.call("dlq", *arguments, "--json").stdout)["counts"]
    return counts


def test_no_letters_is_a_friendly_line_and_no_error(mesh: Cli) -> None:
    ended = mesh.run("dlq", "ls")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "no dead letters" in ended.stderr
    assert json.loads(mesh.call("dlq", "ls", "--json").stdout) == {"schema": 1, "total": 0, "letters": []}
    for verb in ("redrive", "drop"):
        nothing = mesh.call("dlq", verb, "--all", "--apply")
        assert (nothing.returncode, nothing.stdout) == (0, "")


def test_the_list_fits_a_narrow_terminal_and_shows_ids_whole(buried: Cli, ids: tuple[str, str]) -> None:
    shown = buried.screen("dlq", "ls")
    assert shown.returncode == 0
    title, *rows = shown.stdout.splitlines()
    assert title.split() == ["job", "tenant", "model/tier", "attempts", "buried", "reason"]
    assert [row.split()[:2] for row in rows if not row.startswith(" ")] == [[ids[1], "t"], [ids[0], "t"]]
    assert all(len(row) <= 80 for row in [title, *rows])
    piped = buried.call("dlq", "ls").stdout.splitlines()
    assert len(piped) == 3
    assert not any("…" in row for row in piped)
    assert "2 dead letters." in shown.stderr
    limited = buried.call("dlq", "ls", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 2
    assert "2 dead letters; the newest 1 are shown" in limited.stderr


def test_filters_narrow_the_list(buried: Cli) -> None:
    for filters, total in (
        ((), 2),
        (("--model", "sim", "--tier", "standard", "--tenant", "t", "--code", "attempts_exhausted"), 2),
        (("--since", "1h"), 2),
        (("--since", "0s"), 0),
        (("--tier", "batch"), 0),
        (("--code", "internal"), 0),
        (("--tenant", "u"), 0),
    ):
        found = json.loads(buried.call("dlq", "ls", "--json", *filters).stdout)
        assert (found["total"], len(found["letters"])) == (total, total), filters
        for letter in found["letters"]:
            assert (letter["attempts"], letter["code"], letter["model"]) == (3, "attempts_exhausted", "sim")


def test_one_letter_is_shown_whole_with_its_attempts_and_what_to_do_next(buried: Cli, ids: tuple[str, str]) -> None:
    shown = buried.run("dlq", "show", ids[1])
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert '"max_tokens": 3' in shown.stdout
    assert len(re.findall(r"attempt \d on w-\w+, .*: 0 tokens, failed: simulated failure", shown.stdout)) == 3
    assert f"  mesh dlq redrive {ids[1]} --tenant t --apply\n" in shown.stdout
    assert f"  mesh dlq drop {ids[1]} --tenant t --apply\n" in shown.stdout
    whole = json.loads(buried.call("dlq", "show", ids[1], "--tenant", "t", "--json").stdout)
    assert whole["request"]["metadata"] == MENDED
    assert [each["number"] for each in whole["journal"]] == [1, 2, 3]
    assert (whole["result"]["status"], whole["redrive"]["verb"]) == ("failed", "redrive")


def test_a_dry_run_changes_nothing_and_says_how_to_apply(buried: Cli, ids: tuple[str, str]) -> None:
    for verb in ("redrive", "drop"):
        shown = buried.screen("dlq", verb, "--tenant", "t")
        assert shown.returncode == 0
        assert all(len(row) <= 80 for row in shown.stdout.splitlines())
        assert f"{verb} 2; nothing was changed. Add --apply to do it." in shown.stderr
    assert json.loads(buried.call("dlq", "ls", "--json").stdout)["total"] == 2
    assert json.loads(buried.call("result", ids[1], "--tenant", "t", "--json").stdout)["status"] == "failed"


def test_redriven_jobs_run_again_under_their_ids(buried: Cli) -> None:
    done = buried.run("dlq", "redrive", "--all", "--tenant", "t", "--apply", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["applied"], report["counts"]) == (True, {"redrive": 2})
    for letter in report["letters"]:
        result = json.loads(buried.call("result", letter["job"], "--tenant", "t", "--wait", "20", "--json").stdout)
        assert (result["status"], result["attempts"]) == ("finished", 1)
    assert json.loads(buried.call("dlq", "ls", "--json").stdout)["total"] == 0


def test_dropped_letters_are_gone_and_the_results_stay(buried: Cli, ids: tuple[str, str]) -> None:
    done = buried.call("dlq", "drop", ids[1], "--apply")
    assert (done.returncode, "dropped 1." in done.stderr) == (0, True)
    again = buried.call("dlq", "drop", ids[1], "--apply")
    assert (again.returncode, again.stdout) == (1, "")
    assert json.loads(buried.call("dlq", "ls", "--json").stdout)["total"] == 1
    assert json.loads(buried.call("result", ids[1], "--tenant", "t", "--json").stdout)["status"] == "failed"


def test_what_cannot_be_redriven_is_skipped_with_the_reason_and_exit_1(mesh: Cli) -> None:
    late = {"deadline_unix_ms": 1, "prompt": "Hi", "max_tokens": 2, "id": "late"}
    publish_letter(mesh, "late", json.dumps(late).encode())
    assert mesh.call("dlq", "redrive", "late").returncode == 0
    refused = mesh.call("dlq", "redrive", "late", "--apply")
    assert refused.returncode == 1
    assert "skip 1: its deadline has passed; --deadline S gives it a new one" in refused.stderr
    assert "--deadline 600" in mesh.call("dlq", "show", "late").stdout
    assert mesh.call("dlq", "redrive", "late", "--apply", "--deadline", "60").returncode == 0
    assert mesh.call("result", "late", "--wait", "20").returncode == 0


@pytest.mark.parametrize("verb", ["show", "redrive", "drop"])
def test_an_unknown_job_is_exit_1_and_names_the_next_step(mesh: Cli, verb: str) -> None:
    ended = mesh.call("dlq", verb, "nobody")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "mesh dlq ls" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("redrive",), "name the jobs"),
        (("drop", "--apply"), "name the jobs"),
        (("drop", "one", "--all"), "not both"),
        (("ls", "--since", "soon"), "not a duration"),
        (("ls", "--tier", "first"), "Invalid value for '--tier'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(cli: Cli, arguments: tuple[str, ...], text: str) -> None:
    ended = cli.call("dlq", *arguments)
    assert ended.returncode == 2
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_filter_from_the_environment_is_no_choice_of_what_to_drop(buried: Cli) -> None:
    assert buried.call("dlq", "drop", "--apply", env={"MESH_TENANT": "t"}).returncode == 2
    narrowed = buried.call("dlq", "drop", "--all", env={"MESH_TENANT": "u", "MESH_MODEL": "some/where/sim"})
    assert "no dead letters match" in narrowed.stderr


def test_without_a_mesh_it_says_how_to_make_one(mesh: Cli) -> None:
    ended = mesh.call("dlq", "ls", "--namespace", "nowhere")
    assert ended.returncode == 3
    assert "mesh init" in ended.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_reads_like_documentation(name: str) -> None:
    shown = dlq.command.get_command(click.Context(dlq.command), name)
    assert shown is not None
    assert "Example" in shown.get_help(click.Context(shown, info_name=f"mesh dlq {name}"))
    for each in shown.params:
        if isinstance(each, click.Option):
            long = next(opt for opt in each.opts if opt.startswith("--"))
            assert each.envvar == "MESH_" + long[2:].replace("-", "_").upper()
            assert each.help


def test_help_lists_the_subcommands(cli: Cli) -> None:
    shown = cli.run("dlq", "--help")
    assert shown.returncode == 0
    places = [shown.stdout.index(f"\n  {name} ") for name in SUBCOMMANDS]
    assert places == sorted(places)


def publish_letter(mesh: Cli, job: str, body: bytes) -> None:
    """A dead letter of a request that left the queue long ago."""

    async def publish() -> None:
        async with connect(ConnectOptions(servers=(mesh.url,), name="test")) as connection:
            header = headers.block(("Mesh-Job", job), ("Nats-Msg-Id", "dead-999999"), ("Mesh-Stored-Unix-Ms", 1))
            await connection.request("mesh.dead.sim.standard.default.0", body, header)

    asyncio.run(publish())
