"""`mesh up`: a nats-server, the mesh on it and its workers, as one tree of processes."""

import asyncio
import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mesh.broker import topology
from mesh.broker.broker import open_broker
from mesh.broker.transport.options import ConnectOptions
from mesh.cli.option_values import DEFAULT_NATS, EngineChoice, TopologyOptions
from mesh.cli.serve.model_names import served_name
from mesh.cli.serve.monitoring import Monitoring
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.serve.worker_processes import WorkerSpec, restart_with_backoff
from mesh.cli.setup.settings import wanted
from mesh.cli.terminal import loop, render
from mesh.errors import ConfigError, UnavailableError
from mesh.hosting.services import keep_watch
from mesh.hosting.supervisor import Supervisor, describe
from mesh.policies.restart import Backoff
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from mesh.telemetry.health import Condition


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The option values of `mesh up`."""

    choice: EngineChoice
    shape: TopologyOptions
    namespace: str
    port: int
    data: Path
    workers: int
    grace_s: float
    watching: MonitoringOptions


async def serve(order: UpOptions) -> None:
    """Run everything until a signal has drained it.

    Raises:
        ConfigError, EngineDeadError, UnavailableError: something cannot start, or died too often.
    """
    name = served_name(order.choice)
    with locked(order.data):
        server = EmbeddedServer(order.data.resolve(), order.port)
        try:
            await server.start()
            render.say(f"nats-server ready: {server.url}, data in {order.data}")
            await declare(server.url, Names(order.namespace), order.shape, name)
            station = Monitoring(order.watching, "mesh-up")
            spec = WorkerSpec(server.url, order.choice, name, order.namespace, order.grace_s, order.watching)
            restart = restart_with_backoff(render.say)
            supervisor = Supervisor(order.workers, spec.argv, restart, report=render.say)
            station.condition = lambda: Condition("ready" if supervisor.ready.is_set() else "starting")
            async with station.opened("mesh-up"):
                await _keep(server, supervisor, station, name, order)
        finally:
            await server.stop()
    render.say("nats-server ended; the data stays")


async def declare(url: str, names: Names, shape: TopologyOptions, model: str) -> None:
    """Creates missing streams and reports differing ones. Changes no existing stream."""
    async with open_broker(ConnectOptions(servers=(url,), name="mesh-up"), names) as broker:
        settings = await wanted(broker, shape)
        changes = await topology.plan(broker, settings, [model])
        created = await topology.apply(broker.connection, changes)
    for change in changes:
        if change.verb == "differs":
            render.event(f"{change.kind} {change.name} is kept as it is: {change.detail}")
    render.say(f"mesh ready: {created} of {len(changes)} streams, buckets and consumers created")


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """The folder, for one `mesh up` at a time: two servers on one store destroy it.

    Raises:
        ConfigError: it is in use, or cannot be written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "mesh.lock").open("a")
    except OSError as error:
        raise ConfigError(f"--data {data} cannot be used: {error.strerror}", key="data") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"--data {data} is in use by another `mesh up`; take another folder", key="data"
            ) from None
        yield


async def _keep(
    server: EmbeddedServer, supervisor: Supervisor, station: Monitoring, name: str, order: UpOptions
) -> None:
    """Until the supervisor has ended, by a signal or for a reason."""
    signals = 0

    def stop(number: int) -> None:
        nonlocal signals
        signals += 1
        render.say(("draining; again to hurry", "hurrying; again to kill", "killing")[min(signals, 3) - 1])
        supervisor.stop()

    loop.on_signals(stop)
    greeting = asyncio.create_task(_greet(supervisor, server.url, name, order), name="mesh-greet")
    nats = asyncio.create_task(_keep_server(server), name="mesh-nats")
    running = asyncio.create_task(supervisor.run(), name="mesh-supervisor")
    # Where all workers die at once, nobody but us is there to hand their jobs to those started in their place.
    options = ConnectOptions(servers=(server.url,), name="mesh-up")
    keeping = keep_watch(options, Names(order.namespace), "mesh-up", station.mesh_exporter, station.observer)
    watching = asyncio.create_task(keeping, name="mesh-watch")
    try:
        await asyncio.wait({nats, running}, return_when=asyncio.FIRST_COMPLETED)
        await (running if running.done() else nats)
    finally:
        for task in (greeting, nats, running, watching):
            task.cancel()
        await asyncio.gather(greeting, nats, running, watching, return_exceptions=True)


async def _keep_server(server: EmbeddedServer) -> None:
    """Start nats-server again whenever it ends; what it acknowledged is on disk."""
    backoff, loop = Backoff(), asyncio.get_running_loop()
    while True:
        started_s = loop.time()
        assert server.process is not None
        code = await server.process.wait()
        pause_s = backoff.died(loop.time() - started_s)
        if pause_s is None:
            raise UnavailableError(f"nats-server keeps dying ({describe(code)}); see {server.log_file}")
        render.say(f"nats-server died ({describe(code)}); starting it again in {pause_s:g} s")
        await asyncio.sleep(pause_s)
        await server.start()
        render.say(f"nats-server ready: {server.url}")


async def _greet(supervisor: Supervisor, url: str, name: str, order: UpOptions) -> None:
    await supervisor.ready.wait()
    where = "" if url == DEFAULT_NATS else f" --nats {url}"
    where += "" if order.namespace == "mesh" else f" --namespace {order.namespace}"
    render.say(f"ready: model {name} is served; from another terminal:")
    render.say(f'    mesh generate{where} --model {name} "Tell me a story."')
    render.say(f"    mesh chat{where} --model {name}")
    render.say(f"    mesh workers{where}")
    render.say("Ctrl-C drains and ends it.")
