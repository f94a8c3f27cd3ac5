"""The README's words are run: its commands exist, its Python works, its links lead somewhere."""

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.worker.worker import WorkerOptions
from tests.running import RunningMesh, running_mesh

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [code for language, code in FENCES if language == "python"]
SHELL = [line for language, code in FENCES if language == "sh" for line in code.splitlines() if line.strip()]
GROUPS = ("dlq", "tenant")  # commands of commands
EXAMPLES = [ROOT / "examples" / name for name in ("stream.py", "fire_and_forget.py", "plain_nats.py")]


def mesh_commands() -> list[list[str]]:
    found = []
    for line in SHELL:
        for part in re.split(r"&&", line.split(" #")[0]):
            words = shlex.split(part)
            if words[:1] == ["mesh"]:
                found.append(words[1:])
    return found


def test_the_first_two_code_blocks_are_the_two_commands() -> None:
    assert "mesh demo" in FENCES[0][1]
    assert "pytest" in FENCES[1][1]
    assert all(code.strip().count("\n") == 0 for _, code in FENCES[:2])


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    assert FENCES[1][1].strip() in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("words", mesh_commands(), ids=" ".join)
def test_every_command_and_option_exists(words: list[str]) -> None:
    command = words[: 2 if words[0] in GROUPS else 1]
    shown = subprocess.run(
        [sys.executable, "-m", "mesh", *command, "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    assert shown.returncode == 0, shown.stderr
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(option)}\b", shown.stdout), f"mesh {' '.join(command)} has no {option}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_leads_to_a_file(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh that serves a model named `demo`."""
    async with running_mesh(tmp_path / "nats") as running:
        settings = SimulatorSettings(model="demo", first_token_ms=1, between_tokens_ms=1)
        await running.start_worker(settings, WorkerOptions(model="demo", grace_s=5))
        yield running


async def run(code: list[str], url: str, source: str) -> str:
    """The output of a program of ours, pointed at the test's server."""
    program = source.replace("nats://127.0.0.1:4222", url)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *code,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.parametrize("source", PYTHON, ids=[f"block {n}" for n, _ in enumerate(PYTHON)])
async def test_the_python_runs_as_pasted(demo: RunningMesh, source: str) -> None:
    assert await run([], demo.url, source)


async def test_the_examples_run(demo: RunningMesh) -> None:
    assert "finished" in await run([], demo.url, EXAMPLES[0].read_text())
    job = (await run([], demo.url, EXAMPLES[1].read_text())).strip()
    assert "finished" in await run([job], demo.url, EXAMPLES[1].read_text())
    assert "finished" in await run(["demo"], demo.url, EXAMPLES[2].read_text())
