"""The `nats` lines of examples/shell, the README and PROTOCOL.md: with the stock CLI, or with what sends the same."""

import asyncio
import contextlib
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.worker.worker import WorkerOptions
from tests.examples.programs import DEADLINE_S, EXAMPLES, output_of, started
from tests.running import RunningMesh, running_mesh, wait_until

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "nats_cli.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there is `nats`."""
    if shutil.which("nats") is None:
        command = tmp_path / "bin" / "nats"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(STAND_IN))} "$@"\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    return tmp_path


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh that serves `demo`, fast."""
    async with running_mesh(tmp_path / "nats") as running:
        settings = SimulatorSettings(model="demo", first_token_ms=1, between_tokens_ms=2)
        await running.start_worker(settings, WorkerOptions(model="demo", grace_s=5))
        yield running


async def test_the_script_submits_follows_reads_cancels_and_inspects(demo: RunningMesh, path: Path) -> None:
    out = await output_of(["bash", str(EXAMPLES / "shell" / "mesh.sh"), "demo"], path, NATS_URL=demo.url)
    parts = dict(part.split("\n", 1) for part in out.split("\n== ")[1:])
    followed, stored, replayed, cancelled, asked, seen = list(parts.values())[1:]
    assert followed.count('"type":"started"') == followed.count('"type":"result"') == 1
    assert stored.strip() == followed.strip().splitlines()[-1]  # the last event is the Result
    first = re.search(r'"index":(\d+)', replayed)
    assert first is not None
    assert int(first[1]) <= 32 < int(first[1]) + 8
    assert stored.strip() in replayed
    assert cancelled.count('"status":"cancelled"') == 2
    unary, *streamed = asked.strip().splitlines()
    assert '"completion_tokens":8' in unary
    assert [line for line in streamed if line][-1] == "nil body"
    assert asked.count('"type":"result"') == 2
    assert "demo-batch-0" in seen
    assert stored.strip() in seen


def documented(name: str) -> list[list[str]]:
    """The `nats` commands of a page, as words."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("nats ")]
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split(" ; ")]
    assert commands
    return commands


@pytest.mark.parametrize("page", ["README.md", "nats/PROTOCOL.md"])
async def test_every_nats_command_of_our_pages_does_what_it_should(demo: RunningMesh, path: Path, page: str) -> None:
    commands = documented(page)
    heard = []
    async with contextlib.AsyncExitStack() as stack:
        for command in (each for each in commands if each[1] == "sub"):
            process = await stack.enter_async_context(started(command, path, NATS_URL=demo.url))
            line = await asyncio.wait_for(process.stderr.readline(), DEADLINE_S)
            assert b"Subscribing" in line
            heard.append(process)
        for command in (each for each in commands if each[1] != "sub"):
            out = await output_of(command, path, NATS_URL=demo.url)
            if command[1] == "pub":
                job = re.findall(r'"id": "([^"]+)"', command[-1])[0]
                await wait_until(lambda job=job: demo.result(job))
            elif command[1] in ("kv", "req"):
                assert '"status":"finished"' in out
            elif command[1] == "micro":
                assert "mesh" in out or "generate" in out
        for process in heard:
            await asyncio.wait_for(process.stdout.readuntil(b'"type":"result"'), DEADLINE_S)
