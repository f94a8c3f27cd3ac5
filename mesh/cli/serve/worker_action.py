"""`mesh worker`: one worker process, from its options to its end."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from mesh.broker.transport.options import ConnectOptions
from mesh.cli.connecting import connect_options
from mesh.cli.option_values import EngineChoice, Nats, Policies
from mesh.cli.serve.model_names import served_name
from mesh.cli.serve.monitoring import Monitoring
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.terminal import loop, render
from mesh.engines import registry
from mesh.engines.base import Engine
from mesh.errors import ConfigError
from mesh.hosting.host import host_worker
from mesh.policies.progress import ProgressPolicy
from mesh.policies.retry import RetryPolicy
from mesh.policies.tiers import TierWeights
from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import Names, check_token
from mesh.signals import (
    AttemptStarted,
    ConnectionChanged,
    EngineDied,
    JobBuried,
    JobEnded,
    JobReturned,
    RequestRefused,
    Signal,
)
from mesh.worker.worker import Worker, WorkerOptions

log = logging.getLogger("mesh.cli")

OfJob = AttemptStarted | JobReturned | RequestRefused | JobBuried | JobEnded

# For an engine that is still loading to stop: importing vLLM cannot be interrupted, and nobody waits for it.
UNLOADED_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """Everything one worker needs."""

    make_engine: Callable[[], Engine]
    connect: ConnectOptions
    names: Names
    options: WorkerOptions
    station: Monitoring


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The process options of a worker."""

    worker_id: str | None
    grace_s: float
    has_frontdoor: bool = True


def order(
    choice: EngineChoice, nats: Nats, policies: Policies, watching: MonitoringOptions, manner: RunOptions
) -> WorkerCommand:
    """Converts the options to a command.

    Raises:
        ConfigError, InvalidRequestError: one of them cannot be used.
    """

    def make_engine() -> Engine:
        return registry.create(
            choice.engine,
            model=choice.model,
            max_model_len=choice.max_model_len,
            engine_args=choice.engine_arg,
            is_watched=watching.telemetry_port is not None,
        )

    make_engine()  # so that what it refuses is told now
    options = WorkerOptions(
        model=served_name(choice),
        capacity=choice.capacity,
        has_frontdoor=manner.has_frontdoor,
        grace_s=manner.grace_s,
        window_s=policies.coalesce_ms / 1000,
        weights=read_weights(policies.tier_weights),
        retry=RetryPolicy(max_attempts=policies.max_attempts),
        progress=ProgressPolicy(policies.stall_timeout),
        shows_steps=False,
    )
    if manner.worker_id is not None:
        options = replace(options, name=check_token("worker-id", manner.worker_id))
    names = Names(nats.namespace)
    station = Monitoring(watching, options.name, options.model)
    return WorkerCommand(
        make_engine=make_engine,
        connect=connect_options(nats, "mesh-worker"),
        names=names,
        options=replace(options, tally=station.tally),
        station=station,
    )


async def serve(order: WorkerCommand) -> None:
    """Run the worker until a signal has drained it."""
    ready: list[Worker] = []
    hosting = asyncio.create_task(_host(order, ready.append), name="mesh-host")
    unloading = asyncio.Event()

    def stop(number: int) -> None:
        log.info("%s: stopping", signal.Signals(number).name, extra={"event": "signalled"})
        if ready and not ready[-1].is_over:
            ready[-1].drain()
        elif not unloading.is_set():  # cancelled once more, the engine would not be stopped
            hosting.cancel()
            unloading.set()

    loop.on_signals(stop)
    _Fork.serves()
    cut = asyncio.create_task(_cut_short(unloading), name="mesh-cut-short")
    try:
        await hosting
    except asyncio.CancelledError:
        if not unloading.is_set():
            raise
    finally:
        _Fork.is_serving = False
        cut.cancel()
    log.info("worker %s ended", order.options.name, extra={"event": "ended"})


async def _host(order: WorkerCommand, on_ready: Callable[[Worker], None]) -> None:
    station = order.station

    def announce(worker: Worker) -> None:
        station.worker = worker
        on_ready(worker)
        info, capacity = worker.engine.info, worker.statistics().capacity
        render.say(
            f"worker {worker.name} ready: model {order.options.model}, "
            f"engine {info.name} {info.version}, capacity {capacity}"
        )

    async with station.opened("mesh-worker", _observe):
        log.info("worker %s loads %s", order.options.name, order.options.model, extra={"event": "loading"})
        await host_worker(
            order.make_engine,
            order.connect,
            order.options,
            names=order.names,
            observer=station.observer,
            on_ready=announce,
            mesh_exporter=station.mesh_exporter,
        )


def read_weights(text: str) -> TierWeights:
    """`interactive=16,standard=4,batch=1`; what is not named keeps its default.

    Raises:
        ConfigError: it reads otherwise.
    """
    found: dict[str, float] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        tier, _, value = pair.partition("=")
        try:
            found[tier.strip()] = float(value)
        except ValueError:
            found[""] = 0
    if not found.keys() <= set(TIERS):
        known = ",".join(f"{tier}=N" for tier in TIERS)
        raise ConfigError(f"--tier-weights {text!r} does not read as {known}", key="tier-weights")
    return TierWeights(**found)


def end_with_stdin() -> None:
    """Ends this process, however busy it is, when stdin closes: a pipe from the parent."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 64):
                pass
        os._exit(1)  # engine processes watch us in turn

    threading.Thread(target=watch, name="mesh-leash", daemon=True).start()


class _Fork:
    """State for a forked engine core: a fork handler cannot be removed, so each process registers one."""

    is_registered = False
    is_serving = False

    @classmethod
    def serves(cls) -> None:
        """From now on children are set apart, until `is_serving` is False again."""
        if not cls.is_registered:
            os.register_at_fork(after_in_child=_leave_signals_to_us)
        cls.is_registered = cls.is_serving = True


def _leave_signals_to_us() -> None:
    """Ignores signals in a forked engine core. This process drains first, and then ends it.

    The fork inherits the event loop's wakeup socket, so its signals would also reach this process. And Ctrl-C goes
    to the whole process group.
    """
    if _Fork.is_serving:
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)


async def _cut_short(unloading: asyncio.Event) -> None:
    """End the process although a thread still imports vLLM; its engine core, if any, watches us and ends too."""
    await unloading.wait()
    await asyncio.sleep(UNLOADED_STOP_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _observe(signal: Signal) -> None:
    """Logs a signal."""
    match signal:
        case ConnectionChanged(connected=False):
            log.warning("NATS is away; running jobs go on, and are handed over if it stays away", extra=_event("away"))
        case ConnectionChanged():
            log.info("NATS is back", extra=_event("back"))
        case EngineDied(reason=reason):
            log.error("the engine died, its jobs go to other workers: %s", reason, extra=_event("engine_died"))
        case AttemptStarted(job=job, attempt=attempt, cause=None):
            log.debug("job %s began", job, extra=_event("started", signal) | {"attempt": attempt})
        case AttemptStarted(job=job, attempt=attempt, cause=cause, taken_from=before):
            extra = _event("taken_over", signal) | {"attempt": attempt, "reason": cause}
            log.info("job %s taken over from %s: %s", job, before, cause, extra=extra)
        case JobReturned(job=job, reason=reason):
            log.info("job %s handed back: %s", job, reason, extra=_event("returned", signal) | {"reason": reason})
        case RequestRefused(job=job, code=code):
            log.info("job %s refused: %s", job, code, extra=_event("refused", signal) | {"code": code})
        case JobBuried(job=job, code=code):
            log.warning("job %s is a dead letter: %s", job, code, extra=_event("buried", signal) | {"code": code})
        case JobEnded(job=job, status=status, tokens=tokens, total_ms=total_ms):
            extra = _event("job_ended", signal) | {"status": status, "tokens": tokens, "code": signal.code}
            log.debug("job %s %s: %d tokens in %d ms", job, status, tokens, total_ms, extra=extra)
        case _:
            pass


def _event(name: str, about: OfJob | None = None) -> dict[str, object]:
    """Returns the fields of a structured log line."""
    if about is None:
        return {"event": name}
    return {"event": name, "job": about.job, "tenant": about.tenant, "model": about.model, "tier": about.tier}
