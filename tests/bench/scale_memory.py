"""What a client and a worker take up that have nothing to do. A part of tests.bench.scale."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from tests.bench.report import Report
from tests.bench.scale_mesh import LARGE, MiB, rss_bytes, scale_mesh
from tests.bench.stream import BenchError
from tests.bench.worker import MODEL

READY_S = 60.0
END_S = 20.0
# As a program of somebody who reads the README.
CLIENT = """
import asyncio, sys, mesh
async def main():
    async with mesh.connect(sys.argv[1]) as client:
        await client.generate(sys.argv[2], "Tell me a story.", max_tokens=1)
        print("ready", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


async def measure_memory(report: Report, idle_s: float) -> None:
    """A client and a worker as anybody starts them, `idle_s` seconds after they were ready."""
    async with scale_mesh() as mesh:
        worker = ("-m", "mesh", "worker", "--engine", "simulator", "--name", MODEL, "--nats", mesh.url)
        async with _program(*worker) as worker_pid, _program("-c", CLIENT, mesh.url, MODEL) as client_pid:
            await asyncio.sleep(idle_s)
            report.add("an idle client, RSS MiB", LARGE, rss_bytes(client_pid) / MiB)
            report.add("an idle `mesh worker` on the simulator, RSS MiB", LARGE, rss_bytes(worker_pid) / MiB)
            report.add("an idle nats-server with them, RSS MiB", LARGE, rss_bytes(mesh.broker_pid) / MiB)


@contextlib.asynccontextmanager
async def _program(*arguments: str) -> AsyncIterator[int]:
    """A Python process that says on a line of its own when it is ready; its id."""
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            while b"ready" not in (line := await process.stdout.readline()):
                if not line:
                    raise BenchError(f"{' '.join(arguments[:3])} ended with {await process.wait()}")
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
