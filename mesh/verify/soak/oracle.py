"""Computes the simulator's undisturbed output for a request. Pure.

The simulator's output depends only on the request and its seed. So the right text of every job is known before the
soak begins, without an undisturbed run for comparison.
"""

from dataclasses import dataclass

from mesh.engines.simulator.request import plan_of, prompt_ids
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.engines.simulator.text import Writer
from mesh.job_key import JobKey
from mesh.protocol.messages import Request
from mesh.protocol.validate import seed_of


@dataclass(frozen=True, slots=True)
class Reference:
    """One complete output."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str


def reference_of(request: Request, tenant: str, job: str, settings: SimulatorSettings) -> Reference:
    """Return the output of this job on an engine with these settings; delays and capacity have no effect.

    Raises:
        InvalidRequestError, UnsupportedError, TooLargeError: the simulator refuses this request.
    """
    prompt = prompt_ids(request, settings)
    writer = Writer(plan_of(request, seed_of(request, JobKey(tenant, job)), prompt, settings))
    text, token_ids = writer.write(settings.max_model_len)
    return Reference(text, tuple(token_ids), writer.finish_reason or "")
