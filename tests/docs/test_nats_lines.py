"""Every `nats` line of our pages, with the stock CLI, or with what sends the same."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mesh.server import EmbeddedServer
from tests.docs.pages import PAGES, Block, blocks, commands
from tests.examples.programs import DEADLINE_S, output_of, put_nats_on_path, started
from tests.running import RunningMesh, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
BACKUP = "docs/howto/backup.md"
MESH = [sys.executable, "-m", "mesh"]


def lines(page: str) -> Iterator[tuple[Block, list[str]]]:
    """The `nats` commands of a page, as words."""
    for block in blocks(page):
        if block.language in ("", "sh"):
            yield from ((block, words) for words in commands(block) if words[0] == "nats")


TOLD = {page: [words for _, words in lines(page)] for page in PAGES if not page.startswith("docs/reference/")}
TOLD = {page: words for page, words in TOLD.items() if words}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there is `nats`."""
    put_nats_on_path(tmp_path, monkeypatch)
    return tmp_path


def test_the_pages_that_should_tell_nats_lines_do() -> None:
    assert {"README.md", "nats/PROTOCOL.md", "docs/tutorial.md", "docs/howto/operate.md", BACKUP} <= set(TOLD)


@pytest.mark.parametrize("page", TOLD)
def test_a_publish_waits_for_its_ack_and_has_a_message_id(page: str) -> None:
    """What a reader copies must lose nothing, and run nothing twice."""
    for words in TOLD[page]:
        if words[1] == "pub":
            job = re.findall(r'"id": "([^"]+)"', words[-1])[0]
            assert words[2:5] == ["-J", "-H", f"Nats-Msg-Id:default.{job}"]
        assert words[1] != "req" or not words[2].startswith("mesh.req.")


@pytest.mark.parametrize("page", [page for page in TOLD if page != BACKUP])
async def test_every_line_does_what_it_should(demo: RunningMesh, path: Path, page: str) -> None:
    heard = []
    async with contextlib.AsyncExitStack() as stack:
        for command in (each for each in TOLD[page] if each[1] == "sub"):
            process = await stack.enter_async_context(started(command, path, NATS_URL=demo.url))
            assert process.stderr is not None
            line = await asyncio.wait_for(process.stderr.readline(), DEADLINE_S)
            assert b"Subscribing" in line
            heard.append(process)
        for command in (each for each in TOLD[page] if each[1] != "sub"):
            out = await output_of(command, path, NATS_URL=demo.url)
            if command[1] == "pub":
                job = re.findall(r'"id": "([^"]+)"', command[-1])[0]
                await wait_until(partial(demo.result, job))
            elif command[1] in ("kv", "req"):
                assert '"status":"finished"' in out
            elif command[1] == "micro":
                assert "mesh" in out or "generate" in out
        for process in heard:
            assert process.stdout is not None
            await asyncio.wait_for(process.stdout.readuntil(b'"type":"result"'), DEADLINE_S)


async def test_a_backup_brings_the_queue_and_the_results_to_another_server(
    demo: RunningMesh, path: Path, tmp_path: Path
) -> None:
    """As the page says: saved while it runs, restored into an empty server, declared, served."""
    publish = next(words for words in TOLD["docs/tutorial.md"] if words[1] == "pub")
    ended = re.findall(r'"id": "([^"]+)"', publish[-1])[0]
    await output_of(publish, path, NATS_URL=demo.url)
    await wait_until(lambda: demo.result(ended))
    await output_of([*MESH, "init", "--apply", "--model", "later"], path, MESH_NATS=demo.url)
    waiting = [word.replace(ended, "waits").replace(".demo.", ".later.") for word in publish]
    await output_of(waiting, path, NATS_URL=demo.url)

    saved = [words for words in TOLD[BACKUP] if words[2] == "backup"]
    restored = [words for words in TOLD[BACKUP] if words[2] == "restore"]
    assert {words[-1] for words in saved} == {words[-1] for words in restored}
    for words in saved:
        await output_of(words, path, NATS_URL=demo.url)
    assert await demo.result("waits") is None

    server = EmbeddedServer(tmp_path / "new")
    await server.start()
    try:
        for words in restored:
            assert "Restored" in await output_of(words, path, NATS_URL=server.url)
        await output_of([*MESH, "init", "--apply"], path, MESH_NATS=server.url)
        assert "finished" in await output_of([*MESH, "result", ended, "--json"], path, MESH_NATS=server.url)
        worker = [*MESH, "worker", "--engine", "simulator", "--name", "later"]
        async with started(worker, path, MESH_NATS=server.url):
            out = await output_of([*MESH, "result", "waits", "--wait", "--json"], path, MESH_NATS=server.url)
            assert '"finished"' in out
    finally:
        await server.stop(kill=True)
