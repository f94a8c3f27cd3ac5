"""Every command of our pages exists with its options, and those that end by themselves run against a mesh."""

import asyncio
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import click
import pytest
import yaml

import mesh
from mesh.cli.main import cli
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands
from tests.running import RunningMesh, wait_until

BLOCKS = [block for page in PAGES for block in blocks(page, "sh")]
LINES = [(block, words) for block in BLOCKS for words in commands(block)]
OURS = [(block, words[1:]) for block, words in LINES if words[0] == "mesh"]
OTHERS = [(block, words) for block, words in LINES if words[0] not in ("mesh", "nats")]
PROGRAMS = {".", "curl", "docker", "kill", "kubectl", "mkdocs", "mypy", "pip", "pytest", "python", "python3", "ruff"}
# They run until they are told to stop, install something, or take a terminal: tests/cli runs these.
ENDLESS = {"up", "worker", "frontdoor", "reconcile", "top", "chat", "demo", "soak"}
# Declares another mesh than the one that is there.
OF_ANOTHER_MESH = {"docs/howto/durability.md"}
MADE_BY_THE_READER = re.compile(r"^(\.venv|backup|acme\.nk|PID)\b|^-")
DEADLINE_S = 60
pytestmark = [pytest.mark.timeout(150)]


def parsed(arguments: list[str]) -> click.Context:
    """The command of these arguments, as click takes it; nothing runs.

    Raises:
        click.ClickException: it is refused.
    """
    context, command, rest = click.Context(cli, info_name="mesh"), cli, arguments
    found: click.Command = command
    while isinstance(found, click.Group):
        name, *rest = rest
        inner = found.get_command(context, name)
        assert inner is not None, f"{context.command_path} has no command {name}"
        context, found = click.Context(inner, info_name=name, parent=context), inner
    return found.make_context(context.info_name, list(rest), parent=context.parent)


@pytest.mark.parametrize(("block", "arguments"), OURS, ids=[f"{block}-{' '.join(words)[:40]}" for block, words in OURS])
def test_a_command_and_its_options_exist(block: Block, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MESH_")]:
        monkeypatch.delenv(name)
    parsed(arguments)


def test_our_pages_use_most_commands() -> None:
    used = {arguments[0] for block, arguments in OURS if not block.page.startswith("docs/reference/")}
    assert sorted(set(cli.list_commands(click.Context(cli))) - used) == ["cancel", "chat", "frontdoor", "top"]


def test_every_other_line_is_of_a_known_program_and_names_files_that_exist() -> None:
    for block, (program, *words) in OTHERS:
        if block.page.startswith("docs/reference/"):
            continue  # the help of commands, which tests/cli holds to what it says
        assert program in PROGRAMS, f"{block}: {program}"
        for word in words:
            path = word.partition("=")[2] if word.startswith("--from-file=") else word
            if "/" in path and "://" not in path and not MADE_BY_THE_READER.match(path):
                assert (ROOT / path).exists(), f"{block}: {path}"


def test_every_compose_line_is_of_compose_yaml() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    lines = [words for _, words in OTHERS if words[:2] == ["docker", "compose"]]
    assert len(lines) >= 3
    for words in lines:
        if "run" in words:
            after = words[words.index("--rm") + 1 :]
            after = after[2:] if after[0] == "-e" else after
            assert after[0] in services
            parsed(after[1:])
        else:
            assert words[2:] == ["up"]


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page)], ids=str)
def test_a_block_is_of_a_kind_that_is_tested(block: Block) -> None:
    if block.page == "nats/PROTOCOL.md":
        assert block.language in ("", "json")  # the first are `nats` lines
    elif block.page == "examples/demo_model/README.md":
        assert block.language in ("text", "console")  # what the model said; hours of training
    else:
        assert block.language in ("sh", "python", "json", "text")


def json_of(code: str) -> list[object]:
    """The values of a block: one, or one a line."""
    try:
        return [json.loads(code)]
    except ValueError:
        return [json.loads(line) for line in code.splitlines()]


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, "json")], ids=str)
def test_a_json_block_is_json(block: Block) -> None:
    assert json_of(block.code)


def runs(block: Block, arguments: list[str]) -> bool:
    """Whether a command of ours ends by itself, and speaks with the mesh that a test has."""
    is_here = not any("tls://" in word for word in arguments)
    is_run = arguments[0] not in ENDLESS and (arguments[0] != "install" or "--dry-run" in arguments)
    return is_here and is_run and block.page not in OF_ANOTHER_MESH and not block.page.startswith("docs/reference/")


RUNNING_PAGES = [page for page in PAGES if any(block.page == page and runs(block, words) for block, words in OURS)]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING_PAGES)
async def test_the_commands_of_a_page_run_in_order(demo: RunningMesh, tmp_path: Path, page: str) -> None:
    shutil.copytree(ROOT / "nats" / "tenants.d", tmp_path / "nats" / "tenants.d", dirs_exist_ok=True)
    if page == "docs/howto/dead-letters.md":
        await give_up(demo, tmp_path, "report-17")
    for block, arguments in OURS:
        if block.page == page and runs(block, arguments):
            await run(demo, tmp_path, arguments)


async def run(demo: RunningMesh, folder: Path, arguments: list[str]) -> str:
    """What a command of ours prints that ends with 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mesh", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "MESH_NATS": demo.url, "MESH_QUICK": "1", "PYTHONPATH": str(ROOT)},
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0, f"mesh {' '.join(arguments)}: {out.decode()}{err.decode()}"
    return out.decode()


async def give_up(demo: RunningMesh, folder: Path, job: str) -> None:
    """A job that fails every time, and is a dead letter in the end."""
    async with mesh.connect(demo.url) as client:
        handle = await client.submit("demo", "Hello", id=job, metadata={"simulate": {"fail_after": 0}})
        assert (await handle).status == "failed"
    await wait_until(lambda: has_letter(demo, folder), DEADLINE_S)


async def has_letter(demo: RunningMesh, folder: Path) -> bool:
    return "report-17" in await run(demo, folder, ["dlq", "ls", "--json"])


async def test_every_url_of_the_telemetry_port_answers(demo: RunningMesh) -> None:
    asked = {words[-1] for _, words in OTHERS if words[0] == "curl"}
    assert {url.rpartition("/")[2] for url in asked} == {"livez", "readyz", "metrics"}
    assert all(words[1:-1] == ["-s"] for _, words in OTHERS if words[0] == "curl")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mesh", "frontdoor", "--nats", demo.url, "--telemetry-port", "0"),
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stderr is not None
        line = ""
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)) is None:
            line = (await asyncio.wait_for(process.stderr.readline(), DEADLINE_S)).decode()
            assert line, "it ended"
        for url in sorted(asked):
            here = url.replace(":9600/", f":{found[1]}/")
            assert here != url
            await wait_until(partial(asyncio.to_thread, answers, here), DEADLINE_S)
    finally:
        process.kill()
        await process.communicate()


def answers(url: str) -> bool:
    """Whether a page is there; a process that has just begun is not ready."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.read())
    except urllib.error.HTTPError:
        return False
