"""`mesh resume`: the queues of a model hand out jobs again."""

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.queues import queue_output
from mesh.cli.terminal import render
from mesh.control.queues import pause as pausing


async def resume(nats: Nats, target: str, as_json: bool) -> None:
    """Let the queues of `target` go on, and show them.

    Raises:
        InvalidRequestError, ModelNotFoundError: there are no such queues.
    """
    meant = pausing.read_target(target)
    async with open_mesh(nats) as broker:
        outcome = await pausing.resume(broker, meant)
    queue_output.show(outcome, as_json)
    if not as_json:
        paused = sum(1 for each in outcome.before if each.pause_s)
        render.note(f"{paused} of {len(outcome.before)} queues had been paused." if paused else "none was paused.")
