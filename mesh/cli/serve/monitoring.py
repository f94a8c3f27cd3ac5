"""Sets up metrics, health checks and traces of a long-running command from its options."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict

from mesh.broker.transport.connection import Connection
from mesh.cli import traces
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.control.status.mesh_exporter import MeshExporter
from mesh.engines.base import Gauged
from mesh.signals import Observer, Tally, all_of
from mesh.telemetry import endpoint
from mesh.telemetry.extras import needing
from mesh.telemetry.health import Condition, reasons
from mesh.telemetry.pages import JSON, Page
from mesh.telemetry.readings import EngineReading, GpuReading, WorkerReading
from mesh.worker.worker import Worker

log = logging.getLogger("mesh.cli")


class Monitoring:
    """Metrics, health and traces of one process, active while `opened`."""

    def __init__(self, watching: MonitoringOptions, who: str, model: str = "") -> None:
        """`who` tells this process from others; `model`: what its worker serves, if it has one."""
        self._watching = watching
        self._who = who
        self._model = model
        is_open = watching.telemetry_port is not None
        self.tally = Tally() if is_open and model else None
        self.mesh_exporter = MeshExporter(who) if is_open else None
        self.worker: Worker | None = None  # the newest; kept by the command
        self.condition: Callable[[], Condition] = self._worker_condition
        self.observer: Observer = all_of()  # set once it is open
        self._gpus: Sequence[GpuReading] = ()

    @contextlib.asynccontextmanager
    async def opened(self, service: str, observer: Observer | None = None) -> AsyncIterator[None]:
        """Watch for as long as the context lasts. `observer` is told too; `service`: the name in traces.

        Raises:
            ConfigError: an extra is not installed, or the port is taken.
        """
        observers = [observer] if observer is not None else []
        async with contextlib.AsyncExitStack() as stack:
            if self._watching.otlp is not None or traces.is_wanted():
                observers.append(await self._trace(stack, service))
            if self._watching.telemetry_port is not None:
                observers.append(await self._listen(stack, self._watching.telemetry_port))
            self.observer = all_of(*observers)
            yield

    async def _trace(self, stack: contextlib.AsyncExitStack, service: str) -> Observer:
        with needing("tracing", "otlp"):
            from mesh.telemetry.tracing import exported
            from mesh.telemetry.worker_tracing import WorkerTracing
        tracer = await stack.enter_async_context(exported(self._watching.otlp, service, self._who))
        tracing = WorkerTracing(tracer, self._who)
        stack.callback(tracing.close)
        return tracing.observe

    async def _listen(self, stack: contextlib.AsyncExitStack, port: int) -> Observer:
        with needing("metrics", "telemetry-port"):
            from mesh.telemetry import collectors
            from mesh.telemetry.metrics import MEDIA_TYPE, Metrics
        from mesh.telemetry.gpu import Gpus

        assert self.mesh_exporter is not None
        found: list[collectors.Collector] = [collectors.MeshCollector(self.mesh_exporter.asked)]
        gpus = None
        if self.tally is not None:
            gpus = await asyncio.to_thread(Gpus)
            found.append(collectors.WorkerCollector(self._model, self._worker_reading, self.tally))
            found.append(collectors.EngineCollector(self._engine_reading))
            found.append(collectors.GpuCollector(lambda: self._gpus))
        metrics = Metrics(found)

        async def scraped() -> Page:
            if gpus:
                self._gpus = await asyncio.to_thread(gpus.read)
            return Page(200, metrics.page(), MEDIA_TYPE)

        pages: dict[str, endpoint.Make] = {"/metrics": scraped, "/livez": _alive, "/readyz": self._ready}
        host = self._watching.telemetry_host
        at = await stack.enter_async_context(endpoint.opened(host, port, pages))
        log.info(
            "telemetry at http://%s:%d: /livez, /readyz, /metrics",
            f"[{host}]" if ":" in host else host,
            at.port,
            extra={"event": "telemetry_ready", "port": at.port},
        )
        return metrics.observe

    async def _ready(self) -> Page:
        condition = self.condition()
        why = reasons(condition)
        body = {"ready": not why, "phase": condition.phase, "reasons": why}
        return Page(503 if why else 200, json.dumps(body).encode() + b"\n", JSON)

    def _worker_condition(self) -> Condition:
        worker = self.worker
        if worker is None:
            return Condition("starting")
        health = worker.health()
        return Condition(
            phase="ended" if worker.is_over else health.state,
            is_connected=health.is_connected,
            is_confirmed=health.is_confirmed,
            engine_fault=health.engine_fault,
            owes_s=health.owes_s,
            silent_s=health.silent_s,
            stall_s=health.stall_s,
        )

    def _worker_reading(self) -> WorkerReading | None:
        worker = self.worker
        if worker is None:
            return None
        condition, books = self._worker_condition(), worker.statistics()
        return WorkerReading(
            model=self._model,
            is_ready=not reasons(condition),
            is_connected=condition.is_connected,
            running=books.running,
            capacity=books.capacity,
            free=books.free,
            open_pulls=books.open_pulls,
        )

    def _engine_reading(self) -> EngineReading | None:
        engine = self.worker.engine if self.worker is not None and not self.worker.is_over else None
        if not isinstance(engine, Gauged):
            return None
        gauges = engine.gauges()
        return EngineReading(engine=engine.info.name, model=self._model, **asdict(gauges))


def of_process(connection: Connection, ended: asyncio.Event) -> Condition:
    """The condition of a process without a worker. `ended`: it was told to stop."""
    return Condition("draining" if ended.is_set() else "ready", connection.is_connected)


async def _alive() -> Page:
    """Always answers: a running event loop means that the process is alive."""
    return Page(200, b'{"alive": true}\n', JSON)
