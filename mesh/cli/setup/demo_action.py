"""`mesh demo`: everything in one go, in a temporary place, and away again."""

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mesh.broker import topology
from mesh.broker.broker import open_broker
from mesh.broker.transport.options import ConnectOptions
from mesh.cli.option_values import EngineChoice
from mesh.cli.serve.model_names import DEMO_NAME, demo_model
from mesh.cli.serve.worker_processes import WorkerSpec, restart_with_backoff
from mesh.cli.setup.demo_output import ask_all, show_commands, show_results
from mesh.cli.terminal import loop, render
from mesh.cli.terminal.live import progress
from mesh.client.client import connect
from mesh.engines.vllm import install
from mesh.errors import ConfigError, EngineDeadError, MeshError
from mesh.hosting.supervisor import Supervisor
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer

PROMPTS = (
    "Who are you?",
    "Tell me a story about a fox.",
    "What is 7 plus 5?",
    "Write the table of 7.",
    "What happens when a worker dies?",
    "How does a mesh work?",
)
MODEL_TOKENS = 300  # it ends its answers itself, mostly
SIMULATOR_TOKENS = 40  # it never does
LOOK_S = 0.2  # between updates of the line that says how long it has been loading
QUIET_LOOK_S = 5.0  # the same where nobody watches a terminal
LOG_LINES = 15  # of a worker that did not start


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The option values of `mesh demo`."""

    choice: EngineChoice
    prompts: int
    is_kept: bool


def order(engine: str, model: str | None, prompts: int, is_kept: bool) -> DemoOptions:
    """Converts the options to demo options.

    Raises:
        ConfigError: vLLM or the model is not there.
    """
    if engine == "vllm":
        if install.installed() is None:
            raise ConfigError(
                "vLLM is not installed; run `mesh install vllm`, or try `mesh demo --engine simulator`", key="engine"
            )
        model = model or str(demo_model())
    choice = EngineChoice(engine, model, DEMO_NAME, (), None, None)
    return DemoOptions(choice, prompts, is_kept)


async def run(order: DemoOptions) -> None:
    """The whole demo.

    Raises:
        ConfigError, EngineDeadError: the server or the worker did not start.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-demo-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedServer(Path(folder) / "nats")
        try:
            await server.start()
            await _declare(server.url)
            render.say(f"nats-server ready: {server.url} (temporary)")
            log = Path(folder) / "worker.log"
            spec = WorkerSpec(server.url, order.choice, DEMO_NAME)
            supervisor = Supervisor(1, spec.argv, restart_with_backoff(lambda _: None), log_file=log)
            async with _running(supervisor) as running:
                await _await_ready(supervisor, running, order.choice, log)
                await _perform(server.url, order)
                if order.is_kept:
                    await _keep(running)
        finally:
            await server.stop()


async def _declare(url: str) -> None:
    names, settings = Names(), topology.MeshSettings()
    async with open_broker(ConnectOptions(servers=(url,), name="mesh-demo"), names) as broker:
        await topology.apply(broker.connection, await topology.plan(broker, settings))


@contextlib.asynccontextmanager
async def _running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    """The supervisor at work for as long as the context lasts; then it hurries."""
    running = asyncio.create_task(supervisor.run(), name="mesh-supervisor")
    try:
        yield running
    finally:
        supervisor.stop()
        supervisor.stop()
        await asyncio.gather(running, return_exceptions=True)


async def _await_ready(supervisor: Supervisor, running: asyncio.Task[None], choice: EngineChoice, log: Path) -> None:
    """Until the worker pulls, showing how long it takes.

    Raises:
        MeshError: it did not come so far; its log was shown.
    """
    clock = asyncio.get_running_loop().time
    start_s = clock()
    what = "loading vLLM and the model" if choice.engine == "vllm" else f"starting the {choice.engine}"
    ready = asyncio.create_task(supervisor.ready.wait(), name="mesh-ready")
    try:
        with progress(QUIET_LOOK_S) as tell:
            while not (ready.done() or running.done() or supervisor.deaths):
                tell(f"{what}: {clock() - start_s:.0f} s", 0)
                await asyncio.wait({ready, running}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
    if running.done() or supervisor.deaths:
        _explain(running, log)
    render.say(f"worker ready after {clock() - start_s:.1f} s: model {DEMO_NAME}, engine {choice.engine}")


def _explain(running: asyncio.Task[None], log: Path) -> NoReturn:
    """Show the end of the worker's log, and raise what ended it."""
    for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
        render.note(f"    {line}")
    if running.done() and isinstance(error := running.exception(), MeshError):
        raise error
    raise EngineDeadError("the worker died while it started; the lines above are the end of its log")


async def _perform(url: str, order: DemoOptions) -> None:
    """Ask, show, read back."""
    asked = dict(enumerate(itertools.islice(itertools.cycle(PROMPTS), order.prompts), 1))
    async with connect(url) as client:
        questions = {f"demo-{number}": text for number, text in asked.items()}
        most = SIMULATOR_TOKENS if order.choice.engine == "simulator" else MODEL_TOKENS
        results = await ask_all(client, DEMO_NAME, questions, most)
        await show_results(client, results)
    show_commands(url, results[0].id, Names(), order.is_kept)


async def _keep(running: asyncio.Task[None]) -> None:
    """Until a signal, or until the supervisor gives up."""
    stopped = asyncio.Event()
    loop.on_signals(lambda _: stopped.set())
    waiting = asyncio.create_task(stopped.wait(), name="mesh-keep")
    await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()
