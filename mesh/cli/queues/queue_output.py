"""The table of `mesh pause` and `mesh resume`: the queues as they stand now."""

import json
from dataclasses import asdict
from typing import Any

from mesh.cli.terminal import figures, render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.control.queues.pause import PausableQueue, PauseOutcome

_COLUMNS = (
    TableColumn("queue", least=12),
    TableColumn("state", is_state=True),
    TableColumn("waiting", is_number=True),
    TableColumn("running", is_number=True),
)


def show(outcome: PauseOutcome, as_json: bool) -> None:
    """Print the queues after a pause or a resume."""
    if as_json:
        was = {(each.model, each.tier): bool(each.pause_s) for each in outcome.before}
        queues = [_as_json(each) | {"was_paused": was.get((each.model, each.tier), False)} for each in outcome.after]
        render.say_json(json.dumps({"queues": queues}))
        return
    rows = [
        (render.harmless(f"{each.model}/{each.tier}"), pause_words(each), str(each.waiting), str(each.running))
        for each in outcome.after
    ]
    show_table(_COLUMNS, rows)


def pause_words(queue: PausableQueue) -> str:
    """Describes the pause of a queue. Pure."""
    if not queue.pause_s:
        return "open"
    whole = "" if queue.paused_lanes == queue.lanes else f" ({queue.paused_lanes} of {queue.lanes} lanes)"
    return f"paused{whole}" if queue.is_for_ever else f"paused for {figures.span((queue.pause_s + 0.5) * 1000)}{whole}"


def _as_json(queue: PausableQueue) -> dict[str, Any]:
    shown = asdict(queue)
    pause_s = shown.pop("pause_s")
    return shown | {
        "is_paused": bool(queue.pause_s),
        "resumes_in_s": round(pause_s, 3) if queue.pause_s and not queue.is_for_ever else None,
    }
