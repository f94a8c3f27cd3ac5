"""The readings of the mesh, and the lines above the table of `mesh top`. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.cli.terminal import figures
from mesh.cli.top.hour import ModelHour
from mesh.cli.top.keys import State
from mesh.cli.top.tables import Row, Table, TableSources, arranged, bar, table
from mesh.control.jobs.job_state import JobSeen
from mesh.control.status.depth import Rates, Snapshot

STALE_S = 3.0

HELP = (
    "Tab, 1 2 3 4    queues, workers, tenants, models",
    "up, down, j, k  pick a row; PgUp, PgDn, Home, End",
    "Enter           its jobs, then one job live; Esc goes back",
    "<, >, s         sort by the column before, or after",
    "r               the other way round",
    "/               show only rows with a text; Esc shows all again",
    "p, u            pause or resume the picked queue",
    "P, U            pause or resume its whole model",
    "d               drain the picked worker: it finishes what runs, and ends",
    "c               cancel the picked job",
    "q, Ctrl-C       leave",
    "",
    "RUNNING counts jobs given to workers; OLDEST is how long a job has waited.",
    "PULLS are free slots that ask for jobs there.",
    "",
    "LAST HOUR shows output tokens of the jobs that ended, two minutes a bar.",
    "FIRST and P95 are the median and the 95th percentile of the time from the",
    "storage of a request to its first token. All four come from the audit:",
    "its newest 20,000 entries of the last hour, and those that follow.",
    "",
    "Red is wrong, yellow deserves a look. NO_COLOR=1 leaves colours out.",
    "What p, u, P, U, d and c ask for is done after a yes.",
)


@dataclass(frozen=True, slots=True)
class JobPicture:
    """One job, as it was last seen."""

    lines: Sequence[str] = ()  # its state, attempts and timeline
    text: str = ""  # its output so far
    trouble: str = ""  # why it is not seen


@dataclass(frozen=True, slots=True)
class Sight:
    """The readings of the mesh."""

    namespace: str
    seen: Snapshot
    rates: Rates | None = None
    age_s: float = 0.0  # since it was seen
    trouble: str = ""  # why it was not seen since
    clock: str = ""  # the time of day, for the corner
    hours: Mapping[str, ModelHour] = field(default_factory=dict)
    jobs: Sequence[JobSeen] = ()  # of the view of jobs
    jobs_total: int = 0
    jobs_trouble: str = ""  # why they are not seen
    is_listed: bool = False  # they were seen at least once
    job: JobPicture = JobPicture()


def shown(state: State, sight: Sight) -> tuple[Table, list[Row]]:
    """The table of the state's view, and its rows as they are shown."""
    whole = table(state.view, sight.seen, sight.rates, TableSources(sight.jobs, sight.hours))
    return whole, arranged(whole, state.order(whole), state.pattern)


def head(sight: Sight) -> list[tuple[str, str]]:
    """Three lines about the whole mesh, each with a text for either end."""
    seen, rates = sight.seen, sight.rates
    server = seen.server
    cluster = f", cluster {server.cluster}" if server.cluster else ""
    name = (
        f"mesh top  {sight.namespace} on {server.name}{cluster}, nats-server {server.version}, {server.rtt_ms:.1f} ms"
    )
    waiting, running = sum(q.waiting for q in seen.queues), sum(q.in_flight for q in seen.queues)
    dead = figures.many(seen.dead_letters, "dead letter")
    flow = f"in {figures.rate(rates.submitted_per_s)}  out {figures.rate(rates.ended_per_s)}" if rates else ""
    capacity = sum(each.presence.capacity for each in seen.workers)
    busy = sum(each.presence.running for each in seen.workers)
    models = figures.many(len({each.presence.model for each in seen.workers}), "model")
    slots = f"{bar(busy, capacity)} {busy:,}/{capacity:,} slots"
    return [
        (name, sight.clock),
        (f"jobs      {waiting:,} waiting, {running:,} running, {dead}", flow),
        (
            f"workers   {len(seen.workers)} of {models}  {slots}",
            f"tokens {figures.rate(rates.tokens_per_s)}" if rates else "",
        ),
    ]


def trouble(state: State, sight: Sight) -> str:
    """Returns why the readings are stale or incomplete; "": they are current."""
    as_of = f"as of {figures.span(sight.age_s * 1000)} ago: "
    if sight.trouble:
        return as_of + sight.trouble
    if sight.age_s > STALE_S:
        return as_of + "NATS takes long to answer"
    if state.view == "jobs" and sight.jobs_trouble:
        return sight.jobs_trouble
    if state.view == "job" and sight.job.trouble:
        return sight.job.trouble
    missing = ", ".join(sight.seen.missing)
    return f"missing: {missing}; `mesh doctor` tells what to do" if missing else ""


def caption(state: State, whole: Table, sight: Sight) -> str:
    """Returns the title of the table, beside the names of the views."""
    if state.view == "job":
        return f"job {state.job.id} of tenant {state.job.tenant}" if state.job is not None else ""
    order = state.order(whole)
    column = whole.columns[min(order.column, len(whole.columns) - 1)]
    way = " reversed" if order.is_reversed else ""
    kept = f"   only: {state.pattern}" if state.pattern and state.mode != "filter" else ""
    of = ""
    if state.view == "jobs":
        more = f", {len(sight.jobs):,} shown" if sight.jobs_total > len(sight.jobs) else ""
        of = f"{figures.many(sight.jobs_total, 'job')} of {state.scope}{more}   "
    return f"{of}by {column.title.lower()}{way}{kept}"


def nothing(state: State, sight: Sight) -> str:
    """Returns the text of an empty table."""
    if state.pattern:
        return "no row matches; Esc shows all"
    if state.view == "jobs":
        return f"no jobs of {state.scope} wait or run" if sight.is_listed else "looking …"
    return f"no {state.view}"
