"""An attempt is on the wire before the engine has the job: one that kills its worker at once is counted."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import nats
import pytest

import mesh as mesh_api
from mesh.broker.topology import MeshSettings
from mesh.engines.base import Chunk, Work
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.job_key import JobKey
from tests.running import MODEL, running_mesh

WAIT_S = 10.0


class Deadly(SimulatorEngine):
    """Stops everything in this process, as its end would, until what it wrote before was heard elsewhere."""

    def __init__(self, heard: threading.Event) -> None:
        super().__init__(SimulatorSettings(model=MODEL, first_token_ms=1, between_tokens_ms=1))
        self._heard = heard
        self.was_on_the_wire: list[bool] = []

    async def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        self.was_on_the_wire.append(self._heard.wait(WAIT_S))
        async for chunk in super().generate(work):
            yield chunk


def listen(url: str, subject: str, ready: threading.Event, heard: threading.Event, over: threading.Event) -> None:
    """On a thread and a connection of its own: the test's loop stands still meanwhile."""

    async def run() -> None:
        async def on_message(message: object) -> None:
            heard.set()

        connection = await nats.connect(url)
        await connection.subscribe(subject, cb=on_message)
        await connection.flush()
        ready.set()
        await asyncio.to_thread(over.wait)
        await connection.close()

    asyncio.run(run())


@pytest.mark.parametrize("stream", [True, False])
async def test_what_begins_is_on_the_wire_before_the_engine_has_it(tmp_path: Path, stream: bool) -> None:
    ready, heard, over = threading.Event(), threading.Event(), threading.Event()
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as mesh:
        journal = mesh.names.events(JobKey("default", "j1")) if stream else mesh.names.attempts(JobKey("default", "j1"))
        thread = threading.Thread(target=listen, args=(mesh.url, journal, ready, heard, over))
        thread.start()
        try:
            assert await asyncio.to_thread(ready.wait, WAIT_S)
            engine = Deadly(heard)
            await engine.start()
            await mesh.start_worker(engine=engine)
            async with mesh_api.connect(mesh.url) as client:
                result = await client.generate(MODEL, "Hello", id="j1", max_tokens=3, stream=stream, timeout=3 * WAIT_S)
        finally:
            over.set()
            await asyncio.to_thread(thread.join)
        await engine.stop()
    assert engine.was_on_the_wire == [True]
    assert result.status == "finished"
