"""`mesh workers`: who is alive."""

import json
from collections.abc import Sequence

import msgspec

from mesh.cli.connecting import open_client
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.clock import SYSTEM
from mesh.control.status import versions
from mesh.protocol.messages import Presence

_COLUMNS = (
    TableColumn("worker", least=8),
    TableColumn("model", least=5),
    TableColumn("state", is_state=True),
    TableColumn("engine", least=6),
    TableColumn("jobs", is_number=True),
    TableColumn("lanes", least=5),
    TableColumn("done", is_number=True),
    TableColumn("tokens", is_number=True),
    TableColumn("host", least=4),
    TableColumn("pid", is_number=True),
    TableColumn("up", is_number=True),
)


async def show(nats: Nats, as_json: bool) -> None:
    """Print the workers as a table, or as JSON."""
    async with open_client(nats, "default") as client:
        workers = sorted(await client.workers(), key=lambda each: (each.model, each.worker))
    if as_json:
        render.say_json(json.dumps({"workers": msgspec.to_builtins(workers)}))
    elif not workers:
        render.note("no worker is running; start one with `mesh up` or `mesh worker`")
    else:
        show_table(_COLUMNS, [_row(each) for each in workers])
        speakers = versions.of_workers(workers)
        if len(versions.protocols(speakers)) > 1:
            render.note(f"they speak different versions of the protocol: {versions.in_words(speakers)}")


def _row(worker: Presence) -> Sequence[str]:
    return (
        worker.worker,
        worker.model,
        worker.state,
        f"{worker.engine} {worker.engine_version}",
        f"{worker.running}/{worker.capacity}",
        ranges(worker.lanes),
        figures.count(worker.finished),
        figures.count(worker.tokens),
        worker.host,
        str(worker.pid),
        figures.span(SYSTEM.wall_unix_ms() - worker.started_unix_ms),
    )


def ranges(numbers: Sequence[int]) -> str:
    """`[0, 1, 2, 5]` as `0-2,5`. Pure."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts) or "-"
