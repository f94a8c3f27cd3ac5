"""`mesh drain`: tell workers to end, and say what they answered."""

import json
from collections.abc import Sequence

import msgspec

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.live import progress
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.control.workers import drain
from mesh.control.workers.drain import DrainReply
from mesh.protocol.messages import Presence

_COLUMNS = (
    TableColumn("worker", least=12),
    TableColumn("running", is_number=True),
    TableColumn("what happens", least=30, is_prose=True),
)


async def run(nats: Nats, workers: Sequence[str], model: str | None, is_waiting: bool, as_json: bool) -> bool:
    """Drain them; whether all answered, and if waited for, ended.

    Raises:
        ConfigError: one of them is not there; none was told.
    """
    async with open_mesh(nats) as broker:
        chosen = await drain.choose(broker, workers, model)
        told = await drain.drain(broker, chosen)
        if not as_json:
            _show(told, is_waiting)
        left: list[str] = []
        if is_waiting:
            with progress() as tell:
                left = await drain.wait_gone(broker, told, lambda there: tell(_left(there), 0))
    if as_json:
        render.say_json(json.dumps({"workers": [_as_json(each, left) for each in told], "waited": is_waiting}))
    elif left:
        render.complain(f"still there: {', '.join(left)}; `mesh workers` shows what they do")
    elif is_waiting and all(each.answer is not None for each in told):
        render.note("all of them have ended.")
    return not left and all(each.answer is not None for each in told)


def words_of(told: DrainReply) -> str:
    """Describes the state of one drained worker. Pure."""
    answer = told.answer
    if answer is None:
        return told.why
    if answer.was_draining:
        return "it was draining already"
    if not answer.running:
        return "it ends"
    return f"it takes no more; what runs has {answer.grace_s:g} s to finish"


def _show(told: Sequence[DrainReply], is_waiting: bool) -> None:
    rows = [
        (each.worker, "-" if each.answer is None else str(each.answer.running), render.harmless(words_of(each)))
        for each in told
    ]
    show_table(_COLUMNS, rows)
    if not is_waiting:
        render.note("--wait returns when they have ended.")


def _left(there: Sequence[Presence]) -> str:
    return f"{len(there)} still there, {figures.many(sum(each.running for each in there), 'job')} running"


def _as_json(told: DrainReply, left: Sequence[str]) -> dict[str, object]:
    shown: dict[str, object] = {"worker": told.worker, "answered": told.answer is not None}
    if told.answer is None:
        return shown | {"why": told.why}
    answer: dict[str, object] = msgspec.to_builtins(told.answer)
    return shown | answer | {"is_connected": told.worker in left}
