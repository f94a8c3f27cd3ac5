"""How one worker behaves, and what it says of itself: the values around worker/worker."""

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
    capacity: int | None = None  # jobs at once; None: what the engine says
    has_frontdoor: bool = True  # the process answers `<ns>.rpc.>` as well
    grace_s: float = 30.0  # what a drain gives running jobs to finish
    window_s: float = 0.0  # tokens gather for so long after each publish; 0: only while it is under way
    weights: TierWeights = field(default_factory=TierWeights)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    progress: ProgressPolicy = field(default_factory=ProgressPolicy)
    shows_steps: bool = True  # the observer is told of each Step too, which costs a call for each
    tally: Tally | None = None  # counts what happens too often for a signal; None: nobody reads it


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A worker's books at one moment."""

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
    """Whether a worker is well at one moment; judged by whoever asks."""

    state: State
    is_connected: bool
    is_confirmed: bool  # the server confirmed that it lives since the connection was last lost
    owes_s: float  # for how long the engine has not answered a probe
    silent_s: float  # for how long no running job has got anywhere; 0: none runs
    stall_s: float  # after so long the engine is taken for dead
    engine_fault: str | None  # why it is
