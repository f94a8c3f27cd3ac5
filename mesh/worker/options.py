"""The options of one worker, and the values with which it describes itself."""

import secrets
from dataclasses import dataclass, field

from mesh.policies.progress import ProgressPolicy
from mesh.policies.retry import RetryPolicy
from mesh.policies.tiers import TierWeights
from mesh.signals import Tally
from mesh.worker.presence import State


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How one worker behaves. The queue's own settings (ack_wait, lanes) are read from the mesh."""

    model: str  # the name under which the engine is served; a subject token
    name: str = field(default_factory=lambda: f"w-{secrets.token_hex(4)}")
    capacity: int | None = None  # jobs at once; None: the engine's own capacity
    has_frontdoor: bool = True  # the process also answers `<ns>.rpc.>`
    grace_s: float = 30.0  # the time that a drain leaves running jobs to finish
    window_s: float = 0.0  # tokens gather for so long after each publish; 0: only while a publish is in flight
    weights: TierWeights = field(default_factory=TierWeights)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    progress: ProgressPolicy = field(default_factory=ProgressPolicy)
    shows_steps: bool = True  # the observer gets each Step too, which costs one call for each
    tally: Tally | None = None  # counts events that are too frequent for signals; None: nothing is counted


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A worker's counters at one moment."""

    state: State
    running: int
    capacity: int
    finished: int  # jobs that got their Result here
    returned: int  # jobs given up without one
    tokens: int  # output tokens since the start
    open_pulls: int
    free: int  # credits: slots neither taken nor promised to a pull


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """The facts about a worker's health at one moment; the reader judges them."""

    state: State
    is_connected: bool
    is_confirmed: bool  # the server has confirmed its liveness record since the connection was last lost
    owes_s: float  # time since the engine left a probe unanswered; 0: it answered
    silent_s: float  # time since any running job made progress; 0: none runs
    stall_s: float  # the engine counts as dead after so long without progress
    engine_fault: str | None  # why the engine died; None: it did not
