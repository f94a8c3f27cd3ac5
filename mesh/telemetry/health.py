"""Whether a process is ready, and why not. Pure. Asked by telemetry/endpoint for `/readyz`.

Alive is whoever answers: `/livez` says so from the event loop that everything else runs on. Ready is more: what it
is there for would be done now.
"""

from dataclasses import dataclass
from typing import Literal

PROBE_PATIENCE_S = 15.0  # for the engine's answer to a probe: a long step of a healthy one takes less
SILENCE_SHARE = 0.5  # of the time after which an engine without a token is taken for dead

Phase = Literal["starting", "ready", "draining", "ended"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a process. The defaults are those of one that has no engine."""

    phase: Phase
    is_connected: bool = True  # to NATS
    is_confirmed: bool = True  # the server confirmed that the worker lives since the connection was last lost
    engine_fault: str | None = None  # why the engine is taken for dead
    owes_s: float = 0.0  # for how long the engine has not answered a probe
    silent_s: float = 0.0  # for how long no running job has got anywhere
    stall_s: float = 120.0  # after so long the engine is taken for dead


def reasons(condition: Condition) -> list[str]:
    """Why it is not ready, the weightiest first; none: it is."""
    found = []
    match condition.phase:
        case "starting":
            found.append("it is starting")
        case "draining":
            found.append("it is draining")
        case "ended":
            found.append("the worker has ended; its engine is started again, or the process is about to end")
    if condition.engine_fault is not None:
        found.append("the engine is dead")
    if condition.phase == "ended":
        return found
    if not condition.is_connected:
        found.append("NATS is away")
    elif not condition.is_confirmed:
        found.append("NATS has not confirmed yet that this worker lives")
    if condition.owes_s > PROBE_PATIENCE_S:
        found.append(f"the engine has not answered for {condition.owes_s:.0f} s")
    if condition.silent_s > condition.stall_s * SILENCE_SHARE:
        found.append(f"the engine has made no token for any job in {condition.silent_s:.0f} s")
    return found
