"""Real vLLM killed in mid-stream, by its engine core and as a whole worker: the text is that of the undisturbed run."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker.topology import MeshSettings
from mesh.hosting.services import keep_watch
from mesh.protocol.messages import Delta, Event, Result, Started
from tests.engines.conftest import require_vllm
from tests.running import RunningMesh, running_mesh, wait_until

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "demo_model" / "model"
FIELDS: dict[str, Any] = {"max_tokens": 600, "temperature": 0, "ignore_eos": True}
STORY = "Tell me a story about a fox."
START_S = 180.0  # for vLLM to load on a busy machine

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]


@contextlib.asynccontextmanager
async def vllm_worker(mesh: RunningMesh) -> AsyncIterator[asyncio.subprocess.Process]:
    """`mesh worker` with the model of this repository, once it pulls."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mesh", "worker", "--nats", mesh.url, "--model", str(MODEL), "--name", "demo"),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        await wait_ready(process)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def wait_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), START_S)
    assert b" ready: " in line, line


def children_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
    return found


def engine_cores(pid: int) -> list[int]:
    """The engine processes of a worker."""
    names = {child: Path(f"/proc/{child}/comm").read_text() for child in children_of(pid)}
    return [child for child, name in names.items() if "VLLM" in name]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def check_gapless(events: list[Event], result: Result) -> None:
    index, text = 0, ""
    for event in events[:-1]:
        assert not isinstance(event, Result)
        assert event.index == index, "no gap, no repeat, no restart"
        if isinstance(event, Delta):
            index += len(event.token_ids)
            text += event.text
    assert events[-1] == result
    assert result.text == text
    assert index == result.usage.completion_tokens == FIELDS["max_tokens"]
    assert [event.attempt for event in events if isinstance(event, Started)] == list(range(1, result.attempts + 1))


async def test_vllm_killed_in_mid_stream_costs_neither_a_job_nor_a_token(tmp_path: Path) -> None:
    require_vllm()
    settings = MeshSettings(lanes=1, ack_wait_s=600)  # so that no job moves because a lease ended
    async with running_mesh(tmp_path / "nats", settings) as mesh, mesh_api.connect(mesh.url) as client:
        watching = asyncio.create_task(keep_watch(mesh.options(), mesh.names, "supervisor"))
        async with vllm_worker(mesh) as worker:
            undisturbed = await client.generate("demo", STORY, **FIELDS)

            job = await client.submit("demo", STORY, id="engine-killed", **FIELDS)
            async for _ in job:
                break
            for core in engine_cores(worker.pid):
                os.kill(core, signal.SIGKILL)
            await wait_ready(worker)  # the same process, with a new engine
            result = await job.result(timeout=START_S)
            assert (result.status, result.text, result.attempts) == ("finished", undisturbed.text, 2)
            check_gapless(await mesh.history("engine-killed"), result)

            cores = engine_cores(worker.pid)
            assert cores
            job = await client.submit("demo", STORY, id="worker-killed", **FIELDS)
            async for _ in job:
                break
            worker.kill()
            await wait_until(lambda: not any(is_alive(core) for core in cores))
        async with vllm_worker(mesh):
            result = await job.result(timeout=START_S)
            assert (result.status, result.text, result.attempts) == ("finished", undisturbed.text, 2)
            check_gapless(await mesh.history("worker-killed"), result)
        await mesh.wait_queue_empty()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
