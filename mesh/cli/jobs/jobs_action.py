"""`mesh jobs`: the jobs in the queue, as a table."""

from collections.abc import Iterator, Sequence

import msgspec

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.cli.terminal.text import one_line
from mesh.control.jobs.job_state import JobSeen
from mesh.control.jobs.listing import JobLister, JobSelection, Listing
from mesh.protocol.subjects import is_token, to_token

MOST_TENANTS = 6  # named below the table

_COLUMNS = (
    TableColumn("job", least=33),  # an id that the client made up is shown whole
    TableColumn("tenant", least=6),
    TableColumn("model/tier", least=7),
    TableColumn("state", is_state=True),
    TableColumn("age", is_number=True),
    TableColumn("left", is_number=True),
    TableColumn("try", is_number=True),
    TableColumn("out", is_number=True),
    TableColumn("worker", least=6),
)
WIDE = 100  # columns of a terminal that has room for all of these


async def show(nats: Nats, selection: JobSelection, limit: int, as_json: bool) -> None:
    """Print the selected jobs, at most `limit`, and how many there are.

    Raises:
        InvalidRequestError, TopologyError: as `Roster.listing`.
    """
    model = selection.model
    if model is not None and not is_token(model):  # MESH_MODEL may hold what `mesh up` loads
        selection = JobSelection(to_token(model), selection.tier, selection.tenant, selection.state)
    async with open_mesh(nats) as broker:
        listing = await JobLister(broker).listing(selection, limit)
    if as_json:
        render.say_json(msgspec.json.encode(listing).decode())
        return
    if listing.jobs:
        _show(listing.jobs, render.width())
    for line in _summary(listing, selection):
        render.note(line)


def _show(jobs: Sequence[JobSeen], width: int) -> None:
    """The jobs in a terminal of so many columns: a narrow one has no room for how much time they have left."""
    kept = [place for place, column in enumerate(_COLUMNS) if width >= WIDE or column.title != "left"]
    rows = [[row[place] for place in kept] for row in map(_row, jobs)]
    show_table([_COLUMNS[place] for place in kept], rows)


def _row(seen: JobSeen) -> tuple[str, ...]:
    shown = (
        seen.job,
        seen.tenant,
        f"{seen.model}/{seen.tier}",
        seen.state,
        figures.span(seen.age_ms),
        figures.span(seen.deadline_ms) if seen.deadline_ms > 0 else "past",
        str(seen.attempt) if seen.attempt else "-",
        figures.count(seen.tokens) if seen.attempt else "-",
        seen.worker or "-",
    )
    return tuple(one_line(each) for each in shown)


def _summary(listing: Listing, selection: JobSelection) -> Iterator[str]:
    if not listing.total:
        yield "no jobs are queued or run, as far as was asked for"
        return
    none = "" if listing.jobs else f"none is {selection.state}. "
    total = figures.many(listing.total, "job")
    yield f"{none}{total}: {listing.delivered:,} delivered to workers, {listing.waiting:,} waiting."
    if selection.tenant is None and len(listing.tenants) > 1:
        named = [f"{one_line(name)} {count:,}" for name, count in list(listing.tenants.items())[:MOST_TENANTS]]
        rest = len(listing.tenants) - len(named)
        yield f"by tenant: {', '.join(named)}" + (f", and {rest:,} more tenants" if rest else "")
    if listing.jobs and listing.truncated:
        more = f"and {listing.total - len(listing.jobs):,} more" if selection.state is None else "there may be more"
        yield f"{len(listing.jobs):,} are shown, {more}; --limit shows more, `mesh job ID` tells all about one."
