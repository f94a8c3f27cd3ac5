"""Processes behind vLLM are killed or suspended, or never start. Each test has its own engine."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.engines.base import Embedding, Work
from mesh.engines.vllm.engine import VllmEngine, VllmSettings
from mesh.engines.vllm.process import core_processes, running_cores
from mesh.errors import ConfigError, EngineDeadError, RequestError, TooLargeError, UnsupportedError
from mesh.protocol.messages import Request

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]

LONG = Request(prompt="Tell me a story.", max_tokens=900, temperature=0, ignore_eos=True)


@asynccontextmanager
async def started(model: str, **settings: Any) -> AsyncIterator[VllmEngine]:
    """An engine of the test's own, ended and cleared away."""
    threads = set(threading.enumerate())
    engine = VllmEngine(VllmSettings(model, **settings))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await engine.start()
        processes = core_processes(engine._llm)
        yield engine
    finally:
        began = time.monotonic()
        await engine.stop()
        await engine.stop()
        assert time.monotonic() - began < 10
    assert processes
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(EngineDeadError):
        await collect(engine, LONG, "late")
    await gone(lambda: not [t for t in set(threading.enumerate()) - threads if "asyncio" not in t.name], 3)


async def gone(condition: Any, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def collect(engine: VllmEngine, request: Request, job: str) -> list[int]:
    return [token_id async for chunk in engine.generate(Work(job, request, 1)) for token_id in chunk.token_ids]


async def in_flight(engine: VllmEngine, n_calls: int) -> list[asyncio.Task[list[int]]]:
    calls = [asyncio.create_task(collect(engine, LONG, f"call-{index}")) for index in range(n_calls)]
    await gone(lambda: engine.load().running == n_calls, 20)
    return calls


async def test_a_killed_core_fails_every_call_in_flight_and_later(vllm_model: str) -> None:
    async with started(vllm_model) as engine:
        calls = await in_flight(engine, 8)
        (core,) = core_processes(engine._llm)
        began = time.monotonic()
        os.kill(core.pid or 0, signal.SIGKILL)
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert all(isinstance(error, EngineDeadError) for error in ended), ended
        assert time.monotonic() - began < 2
        with pytest.raises(EngineDeadError):
            await collect(engine, LONG, "later")
        with pytest.raises(EngineDeadError):
            await engine.probe(1)


async def test_probe_finds_a_suspended_core_and_everybody_learns_of_it(vllm_model: str) -> None:
    async with started(vllm_model) as engine:
        calls = await in_flight(engine, 4)
        await engine.probe(2)
        (core,) = core_processes(engine._llm)
        os.kill(core.pid or 0, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(EngineDeadError, match="did not answer"):
            await engine.probe(1)
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 2)
        assert all(isinstance(error, EngineDeadError) for error in ended), ended
        assert time.monotonic() - began < 3


async def test_stop_ends_calls_in_flight(vllm_model: str) -> None:
    others = running_cores()
    async with started(vllm_model) as engine:
        calls = await in_flight(engine, 4)
        await engine.stop()
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 2)
        assert all(isinstance(error, EngineDeadError) for error in ended), ended
        engine._is_started = True
    assert running_cores() == others


async def test_a_signal_to_the_core_lets_running_calls_finish(vllm_model: str) -> None:
    """Ctrl-C reaches the core as well as the worker, which still wants to drain."""
    async with started(vllm_model) as engine:
        calls = await in_flight(engine, 2)
        (core,) = core_processes(engine._llm)
        os.kill(core.pid or 0, signal.SIGINT)
        assert [len(ids) for ids in await asyncio.gather(*calls)] == [900, 900]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_start_can_be_abandoned(vllm_model: str) -> None:
    others = running_cores()
    for delay_s in (0.05, 1.2):
        engine = VllmEngine(VllmSettings(vllm_model))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.start(), delay_s)
        await engine.stop()
    assert running_cores() == others
    gc.collect()  # a constructor of vLLM that fails leaves its sockets to the collector, which complains


async def test_what_cannot_be_loaded_is_a_config_error(vllm_model: str) -> None:
    for settings, key, words in (
        (VllmSettings("/nowhere/model"), "model", "/nowhere/model"),
        (VllmSettings(vllm_model, engine_args={"max_num_seq": 4}), "max_num_seq", "max_num_seqs"),
        (VllmSettings(vllm_model, max_model_len=100_000), "model", "100000"),
        (VllmSettings(vllm_model, engine_args={"dtype": "float7"}), "model", "float7"),
    ):
        engine = VllmEngine(settings)
        with pytest.raises(ConfigError, match=words) as caught:
            await engine.start()
        assert caught.value.key == key
        await engine.stop()


async def test_engine_arguments_of_the_operator_win(vllm_model: str) -> None:
    arguments = {"max_num_seqs": 3, "kv_cache_memory_bytes": 8 << 20, "max_num_batched_tokens": 512}
    async with started(vllm_model, max_model_len=256, engine_args=arguments) as engine:
        assert (engine.info.capacity, engine.info.max_model_len) == (3, 256)
        with pytest.raises(TooLargeError, match="256"):
            await collect(engine, Request(prompt_token_ids=[5] * 256), "long")
        default = await collect(engine, Request(prompt="Hi", ignore_eos=True), "default-max-tokens")
        assert len(default) + 1 <= 256


async def test_a_model_made_to_embed_embeds(vllm_model: str) -> None:
    async with started(vllm_model, embed=True) as engine:
        assert engine.info.embeds
        assert not engine.info.generates
        assert not engine.info.chats
        texts = ["a fox", "a lake", "a fox"] * 15
        found = await engine.embed(Work("vectors", Request(input=texts), 1))
        assert isinstance(found, Embedding)
        assert len(found.vectors) == 45
        assert len({len(vector) for vector in found.vectors}) == 1
        assert found.vectors[0] == pytest.approx(found.vectors[2], abs=1e-5)
        assert found.vectors[0] != pytest.approx(found.vectors[1], abs=1e-2)
        single = await engine.embed(Work("one", Request(input="a fox"), 1))
        assert single.vectors[0] == pytest.approx(found.vectors[0], abs=1e-5)
        assert 0 < single.prompt_tokens < found.prompt_tokens
        with pytest.raises(UnsupportedError, match="vectors"):
            await collect(engine, LONG, "text")
        with pytest.raises(TooLargeError) as caught:
            await engine.embed(Work("long", Request(input=["a", "x " * 2000]), 1))
        assert caught.value.field == "input"
        with pytest.raises(RequestError):
            await engine.embed(Work("wrong", Request(input=["a", 5]), 1))  # type: ignore[list-item]
        call = asyncio.create_task(engine.embed(Work("cancelled", Request(input=["word " * 900] * 200), 1)))
        await gone(lambda: engine.load().waiting > 0, 5)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await gone(lambda: not engine._llm.get_num_unfinished_requests(), 1)
        assert engine.load().waiting == 0


WORKER = textwrap.dedent("""
    import asyncio, sys
    from mesh.engines.vllm.engine import VllmEngine, VllmSettings
    from mesh.engines.vllm.process import core_processes, running_cores

    async def main():
        engine = VllmEngine(VllmSettings(sys.argv[1]))
        await engine.start()
        print(core_processes(engine._llm)[0].pid, flush=True)
        await asyncio.sleep(600)

    if __name__ == "__main__":
        asyncio.run(main())
""")


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_a_killed_worker_takes_its_core_along(vllm_model: str, tmp_path: Path, method: str) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"}
    environment.pop("VLLM_WORKER_MULTIPROC_METHOD", None)
    if method == "spawn":
        environment["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        _install_entry_point(tmp_path)
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        vllm_model,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    assert worker.stdout is not None
    core_pid = int(await asyncio.wait_for(worker.stdout.readline(), 120))
    assert _is_alive(core_pid)
    worker.kill()
    await worker.wait()
    await gone(lambda: not _is_alive(core_pid), 2)


def _install_entry_point(folder: Path) -> None:
    """The one line of an installed mesh that vLLM looks for in its spawned processes."""
    metadata = folder / "mesh_guard-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mesh-guard\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nmesh_orphan_guard = mesh.engines.vllm.orphan:guard_vllm_process\n"
    )


def _is_alive(pid: int) -> bool:
    """Running, and not a zombie that nobody in this container reaps."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
