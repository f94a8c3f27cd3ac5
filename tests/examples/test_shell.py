"""The `nats` lines of examples/shell: with the stock CLI, or with what sends the same."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.worker.worker import WorkerOptions
from tests.examples.programs import EXAMPLES, output_of, put_nats_on_path
from tests.running import RunningMesh, running_mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there is `nats`."""
    put_nats_on_path(tmp_path, monkeypatch)
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
    events = [json.loads(line) for line in replayed.splitlines() if line.startswith("{")]
    first = next(event for event in events if event["type"] == "delta")
    assert first["index"] <= 32 < first["index"] + len(first["token_ids"])
    assert stored.strip() in replayed
    assert cancelled.count('"status":"cancelled"') == 2
    unary, *streamed = asked.strip().splitlines()
    assert '"completion_tokens":8' in unary
    assert [line for line in streamed if line][-1] == "nil body"
    assert asked.count('"type":"result"') == 2
    assert "demo-batch-0" in seen
    assert stored.strip() in seen
