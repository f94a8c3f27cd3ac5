"""Decides for `/readyz` whether a process is ready, and why not. Pure.

`/livez` only checks that the event loop answers. A ready process would also run a job now.
"""

from dataclasses import dataclass
from typing import Literal

PROBE_PATIENCE_S = 15.0  # for the engine's answer to a probe; a long step of a healthy engine is shorter
SILENCE_SHARE = 0.5  # of `stall_s`: after this share without a token, the process is not ready

Phase = Literal["starting", "ready", "draining", "ended"]


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a process. The defaults are those of a process without an engine."""

    phase: Phase
    is_connected: bool = True  # to NATS
    is_confirmed: bool = True  # the server confirmed the worker's liveness since the connection was last lost
    engine_fault: str | None = None  # why the engine is considered dead
    owes_s: float = 0.0  # seconds for which the engine has not answered a probe
    silent_s: float = 0.0  # seconds for which no running job has made progress
    stall_s: float = 120.0  # seconds without a token after which the engine is considered dead


def reasons(condition: Condition) -> list[str]:
    """Return why the process is not ready, the most important reason first; empty: it is ready."""
    found = []
    match condition.phase:
        case "starting":
            found.append("it is starting")
        case "draining":
            found.append("it is draining")
        case "ended":
            found.append("the worker has ended; its engine restarts, or the process is about to end")
    if condition.engine_fault is not None:
        found.append("the engine is dead")
    if condition.phase == "ended":
        return found
    if not condition.is_connected:
        found.append("there is no connection to NATS")
    elif not condition.is_confirmed:
        found.append("NATS has not confirmed this worker's liveness yet")
    if condition.owes_s > PROBE_PATIENCE_S:
        found.append(f"the engine has not answered for {condition.owes_s:.0f} s")
    if condition.silent_s > condition.stall_s * SILENCE_SHARE:
        found.append(f"the engine has made no token for any job in {condition.silent_s:.0f} s")
    return found
