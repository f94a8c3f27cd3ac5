"""What the simulator writes for a request when nothing goes wrong. Pure.

The simulator's output is a function of the request and its seed, so the text that every job of a soak must end with
is known before the soak begins, and no undisturbed run is needed to compare with.
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
    """One whole output."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str


def reference_of(request: Request, tenant: str, job: str, settings: SimulatorSettings) -> Reference:
    """The output of this job on an engine with these settings; delays and capacity do not matter.

    Raises:
        InvalidRequestError, UnsupportedError, TooLargeError: the simulator refuses such a request.
    """
    prompt = prompt_ids(request, settings)
    writer = Writer(plan_of(request, seed_of(request, JobKey(tenant, job)), prompt, settings))
    text, token_ids = writer.write(settings.max_model_len)
    return Reference(text, tuple(token_ids), writer.finish_reason or "")
