"""`mesh pause` and `mesh resume`: from a model's name to its queues, and what became of them."""

import json
from dataclasses import asdict
from typing import Any

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.render import TableColumn
from mesh.control.queues import pause as pausing
from mesh.control.queues.pause import PausableQueue, PauseOutcome

_COLUMNS = (
    TableColumn("queue", least=12),
    TableColumn("state"),
    TableColumn("waiting", is_number=True),
    TableColumn("running", is_number=True),
)


async def pause(nats: Nats, target: str, for_s: float | None, as_json: bool) -> None:
    """Pause the queues of `target`, until resumed if `for_s` is None, and show them.

    Raises:
        InvalidRequestError, ModelNotFoundError: there are no such queues.
    """
    meant = pausing.read_target(target)
    async with open_mesh(nats) as broker:
        outcome = await pausing.pause(broker, meant, for_s)
    _show(outcome, as_json)
    if not as_json:
        render.note(f"what runs goes on; what waits is kept, and its deadlines still count. `mesh resume {meant}`")


async def resume(nats: Nats, target: str, as_json: bool) -> None:
    """Let the queues of `target` go on, and show them.

    Raises:
        InvalidRequestError, ModelNotFoundError: there are no such queues.
    """
    meant = pausing.read_target(target)
    async with open_mesh(nats) as broker:
        outcome = await pausing.resume(broker, meant)
    _show(outcome, as_json)
    if not as_json:
        paused = sum(1 for each in outcome.before if each.pause_s)
        render.note(f"{paused} of {len(outcome.before)} queues had been paused." if paused else "none was paused.")


def pause_words(queue: PausableQueue) -> str:
    """What is said of a queue's pause. Pure."""
    if not queue.pause_s:
        return "open"
    whole = "" if queue.paused_lanes == queue.lanes else f" ({queue.paused_lanes} of {queue.lanes} lanes)"
    return f"paused{whole}" if queue.is_for_ever else f"paused for {figures.span(queue.pause_s * 1000 + 500)}{whole}"


def _show(outcome: PauseOutcome, as_json: bool) -> None:
    if as_json:
        was = {(each.model, each.tier): bool(each.pause_s) for each in outcome.before}
        queues = [_as_json(each) | {"was_paused": was.get((each.model, each.tier), False)} for each in outcome.after]
        render.say(json.dumps({"queues": queues}))
        return
    rows = [
        (render.harmless(f"{each.model}/{each.tier}"), pause_words(each), str(each.waiting), str(each.running))
        for each in outcome.after
    ]
    for line in render.table(_COLUMNS, rows, render.width()):
        render.say(line)


def _as_json(queue: PausableQueue) -> dict[str, Any]:
    shown = asdict(queue)
    pause_s = shown.pop("pause_s")
    return shown | {
        "is_paused": bool(queue.pause_s),
        "resumes_in_s": round(pause_s, 3) if queue.pause_s and not queue.is_for_ever else None,
    }
