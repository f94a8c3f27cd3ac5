"""A worker is suspended while a job is on its way to it, and wakes up when the job runs elsewhere."""

import os
import signal
from pathlib import Path

import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.topology import MeshSettings
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.protocol.messages import Started
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

SCRIPT = Path(__file__).with_name("crashing_worker.py")
CONSUMER = f"{MODEL}-standard-0"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def consumer(mesh: RunningMesh) -> dict[str, int]:
    states: dict[str, dict[str, int]] = await topology.consumer_states(mesh.connection, mesh.names.requests_stream)
    return states[CONSUMER]


async def suspended_with_a_job(mesh: RunningMesh, client: mesh_api.Client, pid: int) -> mesh_api.Job:
    """Suspend the process while its pull is open, and store a job that the server sends to its socket."""

    async def pulls() -> bool:
        return (await consumer(mesh))["num_waiting"] == 1

    async def is_given_out() -> bool:
        return (await consumer(mesh))["num_ack_pending"] == 1

    for number in range(10):
        await wait_until(pulls)
        os.kill(pid, signal.SIGSTOP)
        job = await client.submit(MODEL, "Where am I?", max_tokens=60, stream=True, id=f"j{number}")
        try:
            await wait_until(is_given_out, 0.5)
        except AssertionError:  # the pull ended just before: once more
            os.kill(pid, signal.SIGCONT)
            await job.result(timeout=30)
        else:
            return job
    raise AssertionError("no job was ever sent to a suspended worker")


async def test_a_delivery_that_lay_in_the_socket_is_left_to_the_worker_that_has_it_now(tmp_path: Path) -> None:
    """It wakes up, runs its overdue timers, and only then reads the job: that must not make the job look fresh."""
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, ack_wait_s=1.0)) as mesh:
        child = await mesh.start_child(SCRIPT)
        async with mesh_api.connect(mesh.url) as client:
            job = await suspended_with_a_job(mesh, client, child.pid)
            settings = SimulatorSettings(model=MODEL, between_tokens_ms=50)
            worker = await mesh.start_worker(settings)

            async def begun_by() -> list[str]:
                return [each.worker for each in await mesh.history(job.id) if isinstance(each, Started)]

            await wait_until(begun_by)
            os.kill(child.pid, signal.SIGCONT)
            assert (await job.result(timeout=30)).status == "finished"
            assert await begun_by() == [worker.name]
