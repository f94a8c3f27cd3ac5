"""A client from its opening to its end: in a context or closed by hand, left half read, forked, or never closed."""

import asyncio
import contextlib
import gc
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.client.internal import loop_of
from mesh.engines.simulator.settings import SimulatorSettings
from tests.running import MODEL, RunningMesh, running_mesh

SLOWLY = SimulatorSettings(model=MODEL, between_tokens_ms=10)
JOIN_S = 20.0  # for a thread or a process that should end at once

CALLS: dict[str, Callable[[Any], object]] = {  # of a client of either kind
    "submit": lambda client: client.submit(MODEL, "Hello"),
    "generate": lambda client: client.generate(MODEL, "Hello"),
    "embed": lambda client: client.embed(MODEL, "Hello"),
    "job": lambda client: client.job("j"),
    "result": lambda client: client.result("j"),
    "workers": lambda client: client.workers(),
}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of a mesh that runs in a thread of its own."""
    started, stop, found = threading.Event(), threading.Event(), dict[str, str]()

    async def run() -> None:
        async with running_mesh(tmp_path / "nats") as mesh:
            await mesh.start_worker(SLOWLY)
            found["url"] = mesh.url
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(JOIN_S)
        yield found["url"]
    finally:
        stop.set()
        thread.join(JOIN_S)


def client_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mesh-blocking"]


# With an event loop.


async def test_a_client_without_a_context_works_until_it_is_closed(mesh: RunningMesh) -> None:
    client = await mesh_api.connect(mesh.url)
    gc.collect()  # nothing but the program holds it
    job = await client.submit(MODEL, "Hello", max_tokens=3)
    assert (await job.result(timeout=10)).status == "finished"
    await client.aclose()
    assert "closed" in repr(client)


async def test_a_client_that_is_entered_by_hand_is_not_closed_behind_its_programs_back(mesh: RunningMesh) -> None:
    client = await mesh_api.connect(mesh.url).__aenter__()
    gc.collect()
    assert (await client.generate(MODEL, "Hello", max_tokens=3, timeout=10)).status == "finished"
    await client.aclose()


async def test_closing_twice_and_at_once_is_closing(mesh: RunningMesh) -> None:
    async with mesh_api.connect(mesh.url) as client:
        await asyncio.gather(client.aclose(), client.aclose())
        await client.aclose()
    await client.aclose()


async def test_a_second_close_returns_when_the_client_is_closed(mesh: RunningMesh) -> None:
    client = await mesh_api.connect(mesh.url)
    first = asyncio.create_task(client.aclose())
    async with asyncio.timeout(JOIN_S):
        while "closed" not in repr(client):  # then it refuses calls, and its connection still stands  # noqa: ASYNC110
            await asyncio.sleep(0)
    await client.aclose()
    assert "Connection closed" in repr(client)
    await first


async def test_a_cancelled_close_still_closes(mesh: RunningMesh) -> None:
    client = await mesh_api.connect(mesh.url)
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    await client.aclose()
    assert "Connection closed" in repr(client)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_closed_client_says_so(mesh: RunningMesh, call: Callable[[Any], object]) -> None:
    client = await mesh_api.connect(mesh.url)
    await client.aclose()

    async def call_it() -> None:
        outcome = call(client)
        if inspect.isawaitable(outcome):
            await outcome

    with pytest.raises(errors.DisconnectedError, match="this client is closed"):
        await call_it()


async def test_a_job_of_a_closed_client_says_so(mesh: RunningMesh) -> None:
    client = await mesh_api.connect(mesh.url)
    job = await client.submit(MODEL, "Long", max_tokens=5000)
    waiting = asyncio.create_task(job.result())
    await asyncio.sleep(0)
    await client.aclose()
    for outcome in (waiting, job.result(), job.status(), job.cancel(), anext(job.deltas())):
        with pytest.raises(errors.DisconnectedError, match="closed"):
            await outcome
    async with mesh_api.connect(mesh.url) as other:
        assert await other.job(job.id).cancel() == "cancelled"


async def test_a_tenant_that_cannot_be_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(errors.InvalidRequestError, match="tenant"):
        await mesh_api.connect("nats://127.0.0.1:9", tenant="a.b")


async def test_the_handle_knows_its_tenant_and_its_model(mesh: RunningMesh, tmp_path: Path) -> None:
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit(MODEL, "Hello", max_tokens=3)
        assert (job.tenant, job.model) == ("default", MODEL)
        assert job.sequence > 0
        await job
        late = client.job(job.id)
        await late
        assert (late.tenant, late.model, late.sequence) == ("default", MODEL, 0)


# Without one.


def test_a_blocking_client_without_a_context_works_until_it_is_closed(url: str) -> None:
    client = mesh_api.blocking.connect(url)
    gc.collect()
    assert client.generate(MODEL, "Hello", max_tokens=3, timeout=10).status == "finished"
    with client as same:
        assert same is client
        job = client.submit(MODEL, "Hello", max_tokens=3)
    client.close()
    client.close()
    job.close()
    assert client_threads() == []
    for call in CALLS.values():
        with pytest.raises(errors.DisconnectedError, match="this client is closed"):
            call(client)
    with pytest.raises(errors.DisconnectedError, match="this client is closed"):
        job.result()


def test_several_threads_may_close_a_blocking_client(url: str) -> None:
    client = mesh_api.blocking.connect(url)
    threads = [threading.Thread(target=client.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive()
    assert client_threads() == []


def test_a_blocking_client_that_cannot_connect_leaves_no_thread() -> None:
    with pytest.raises(errors.DisconnectedError, match="cannot reach NATS"):
        mesh_api.blocking.connect("nats://127.0.0.1:9", timeout=0.5)
    assert client_threads() == []


def in_time(work: Callable[[], object]) -> None:
    """Do `work` in a thread of its own, and fail where it would wait for ever."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(JOIN_S)
    assert not thread.is_alive(), "it waits for itself"


def test_an_iteration_that_is_left_may_be_ended_by_the_garbage_collector_in_any_thread(url: str) -> None:
    """Also in the client's own, which would wait for itself."""
    client = mesh_api.blocking.connect(url)
    job = client.submit(MODEL, "A story", max_tokens=200)
    kept = [iter(job)]
    text = next(kept[0]).text

    async def drop() -> None:
        kept.clear()
        gc.collect()

    in_time(lambda: loop_of(client).run(drop()))
    text += "".join(delta.text for delta in job)
    assert text == job.result(timeout=10).text
    assert client.generate(MODEL, "Hello", max_tokens=3, timeout=10).status == "finished"
    client.close()


def test_a_call_from_the_clients_own_thread_is_refused_rather_than_waiting_for_itself(url: str) -> None:
    client = mesh_api.blocking.connect(url)
    told: list[str] = []

    async def call() -> None:
        try:
            client.workers()
        except RuntimeError as error:
            told.append(str(error))

    in_time(lambda: loop_of(client).run(call()))
    assert "own thread" in told[0]
    assert client.workers()
    client.close()


FORKING = """
import os, sys, mesh
client = mesh.blocking.connect(sys.argv[1])
job = client.submit("simulator", "Hello", max_tokens=5000)
stream = iter(job)
next(stream)
child = os.fork()
if not child:
    told = []
    for call in (lambda: client.workers(), lambda: job.result(timeout=5), lambda: next(stream), lambda: job.status()):
        try:
            call()
        except mesh.errors.DisconnectedError as error:
            told.append(str(error))
    job.close()
    client.close()
    client.close()
    with mesh.blocking.connect(sys.argv[1]) as own:
        print(len(told), told[0], own.workers()[0].model, flush=True)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(next(stream).index > 0, job.cancel())
client.close()
"""

LEFT = """
import sys, mesh
client = mesh.blocking.connect(sys.argv[1])
job = client.submit("simulator", "Hello", max_tokens=5000)
next(iter(job))
"""


def run(program: str, url: str) -> str:
    command = (sys.executable, "-W", "error", "-c", program, url)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_forked_process_is_told_that_it_needs_a_client_of_its_own(url: str) -> None:
    child, parent = run(FORKING, url).splitlines()
    assert child.startswith("4 this process was forked after the client had connected")
    assert child.endswith(MODEL)
    assert parent == "True cancelled"


def test_a_program_may_end_without_closing(url: str) -> None:
    assert run(LEFT, url) == ""
