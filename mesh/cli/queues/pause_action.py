"""`mesh pause`: the queues of a model stop handing out jobs."""

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.queues import queue_output
from mesh.cli.terminal import render
from mesh.control.queues import pause as pausing


async def pause(nats: Nats, target: str, for_s: float | None, as_json: bool) -> None:
    """Pause the queues of `target`, until resumed if `for_s` is None, and show them.

    Raises:
        InvalidRequestError, ModelNotFoundError: there are no such queues.
    """
    meant = pausing.read_target(target)
    async with open_mesh(nats) as broker:
        outcome = await pausing.pause(broker, meant, for_s)
    queue_output.show(outcome, as_json)
    if not as_json:
        render.note(f"what runs goes on; what waits is kept, and its deadlines still count. `mesh resume {meant}`")
