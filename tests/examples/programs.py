"""Programs in other languages, run against a mesh."""

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxy import proxied
from tests.running import RunningMesh, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
# On a busy machine the first token may be shown before this is: then it stands in the middle of a line.
STORED = re.compile(r"job (\S+) is stored as MESH_REQUESTS \d+\n")
DEADLINE_S = 100  # a dozen processes, on a machine that may be busy


def put_nats_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `nats` be found: the stock CLI, or where that is not installed, what sends the same."""
    if shutil.which("nats") is None:
        command = folder / "bin" / "nats"
        command.parent.mkdir()
        stand_in = Path(__file__).parent / "nats_cli.py"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(stand_in))} "$@"\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(command.parent), prepend=":")


def missing(what: str, *, is_promised: bool) -> None:
    """Skip the test, for want of a language; CI has those that are promised."""
    if is_promised and os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@contextlib.asynccontextmanager
async def started(command: list[str], folder: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that runs, with its output as a pipe; killed at the end if it still does."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=pipe, cwd=folder, env={**os.environ, **environment}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def output_of(command: list[str], folder: Path, **environment: str) -> str:
    """What a program printed that ended well."""
    async with started(command, folder, **environment) as process:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert process.returncode == 0, out.decode() + err.decode()
        return out.decode()


async def check_output(mesh: RunningMesh, out: str) -> None:
    """It showed every token of its first job once and in order, and cancelled its second."""
    first, second = [await mesh.result(job) for job in jobs_of(out)]
    assert second is not None
    assert first is not None
    assert (first.status, second.status) == ("finished", "cancelled")
    assert len(first.text) > 40
    assert re.search(rf"(^|\n){re.escape(first.text)}\n", STORED.sub("", out))
    assert f'{{"id":"{second.id}","status":"cancelled"}}' in out
    await mesh.wait_queue_empty()


def check_front_door(out: str) -> None:
    """It asked for something in one request, and has the answer for the reply."""
    answer = re.findall(r"^front door: (.+)$", out, re.MULTILINE)
    assert len(answer) == 1, out
    assert len(answer[0].split()) >= 6  # of eight tokens; some show nothing


def jobs_of(out: str) -> list[str]:
    """The ids of the two jobs, in the lines that say that they are stored."""
    found = STORED.findall(out)
    assert len(found) == 2, out
    return found


async def output_after_a_cut(mesh: RunningMesh, command: list[str], folder: Path) -> str:
    """What a program printed whose connection lost some events and then broke; `URL` in its command is the way."""
    async with proxied(mesh.server.port) as proxy:
        words = [word.replace("URL", proxy.url) for word in command]
        async with started(words, folder) as process:
            assert process.stdout is not None
            out = await asyncio.wait_for(process.stdout.readline(), DEADLINE_S)
            job = STORED.findall(out.decode())[0]
            out += await asyncio.wait_for(process.stdout.readexactly(10), DEADLINE_S)  # some tokens
            proxy.hold_answers()
            seen = len(await mesh.history(job))

            async def is_behind() -> bool:
                return len(await mesh.history(job)) >= seen + 3

            await wait_until(is_behind)
            proxy.cut()
            rest, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
            assert process.returncode == 0, (out + rest + err).decode()
            return (out + rest).decode()
