"""`mesh audit`: entries of the audit, one a line."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mesh.audit.reader import AuditFilter, AuditLog, StoredEntry
from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.text import cells, clip, one_line
from mesh.clock import SYSTEM
from mesh.protocol.messages import AuditEntry
from mesh.protocol.subjects import check_token, is_token, to_token

_EVENT, _JOB = 10, 24  # columns


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The filters of the options. None matches all."""

    tenant: str | None
    job: str | None
    event: str | None
    model: str | None
    since: float | None  # seconds ago
    until: float | None


async def show(nats: Nats, asked: AuditQuery, limit: int, is_followed: bool, as_json: bool) -> None:
    """Print the newest `limit` entries, and those that come if they are followed, until a signal.

    Raises:
        InvalidRequestError: a name is no subject token.
        TopologyError, BrokerError: there is no mesh, or NATS did not answer.
    """
    selection = _selection(asked)
    async with open_mesh(nats) as broker:
        log = AuditLog(broker, selection)
        found, last = await log.newest(limit)
        printer = Printer(as_json)
        printer.show(found)
        if not found and not as_json:
            render.note(
                "nothing of that kind is in the audit; it is kept for 7 days (`mesh init --no-audit` keeps none)"
            )
        if is_followed:
            async with contextlib.aclosing(log.follow(last)) as pages:
                async for page in pages:
                    printer.show(page)


class Printer:
    """Prints entries under one heading, and the date where it changes."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._date = ""

    def show(self, entries: Sequence[StoredEntry]) -> None:
        for kept in entries:
            if self._as_json:
                render.say_json(kept.body.decode("utf-8", "replace"))
                continue
            at = time.localtime(kept.unix_ms / 1000)
            date = time.strftime("%Y-%m-%d", at)
            if not self._date:
                render.say(line_of("when", "event", "tenant/job", "what", render.width()))
            if date != self._date:
                render.say(date)
                self._date = date
            job = f"{kept.entry.tenant}/{kept.entry.job}" if kept.entry.tenant else "-"
            what = ", ".join(words_of(kept.entry))
            render.say(line_of(time.strftime("%H:%M:%S", at), kept.entry.event, job, what, render.width()))


def line_of(when: str, event: str, job: str, what: str, width: int) -> str:
    """One line of the listing, no wider than `width`; nothing is cut where that is unlimited. Pure."""
    names = [one_line(event), one_line(job)]
    if width < render.UNLIMITED:
        names = [clip(name, size) for name, size in zip(names, (_EVENT, _JOB), strict=True)]
    padded = [name + " " * (size - cells(name)) for name, size in zip(names, (_EVENT, _JOB), strict=True)]
    return clip("  ".join([when.ljust(8), *padded, one_line(what)]), width).rstrip()


def words_of(entry: AuditEntry) -> Iterator[str]:
    """Yields the details of an entry beside its event and job, the most important first. Pure."""
    match entry.event:
        case "taken_over":
            yield f"from {entry.taken_from}" + (f" ({entry.cause})" if entry.cause else "")
            yield f"attempt {entry.attempt} at token {entry.index}"
        case "started":
            yield f"attempt {entry.attempt}" + (f" at token {entry.index}" if entry.index else "")
        case "ended":
            yield entry.status + (f" ({entry.code})" if entry.code and entry.code != entry.status else "")
            yield figures.many(entry.tokens, "token")
            if entry.total_ms is not None:
                yield figures.span(entry.total_ms)
            if entry.attempts > 1:
                yield f"{entry.attempts} attempts"
        case "refused" | "buried":
            yield entry.code + (f": {entry.field}" if entry.field else "")
        case "gap":
            yield f"{figures.many(entry.count, 'entry', 'entries')} missing"
        case "paused":
            yield "until resumed" if entry.for_s is None else f"for {figures.span(entry.for_s * 1000)}"
    if entry.event == "refused" and entry.count > 1:
        yield f"{entry.count:,} times"
    if entry.event == "returned" or (entry.cause and entry.event == "ended"):
        yield entry.cause
    if entry.model:
        yield f"{entry.model}/{entry.tier}" if entry.tier else entry.model
    yield from _who(entry)


def _who(entry: AuditEntry) -> Iterator[str]:
    if entry.worker:
        yield f"worker {entry.worker}"
    if entry.user or entry.host:
        yield f"by {entry.user or 'somebody'} on {entry.host or 'a machine'} ({entry.by})"
    else:
        yield f"by {entry.by}"


def _selection(asked: AuditQuery) -> AuditFilter:
    now_s = SYSTEM.wall_unix_ms() / 1000
    model = asked.model
    if model is not None and not is_token(model):  # MESH_MODEL may hold what `mesh up` loads
        model = to_token(model)
    return AuditFilter(
        tenant=asked.tenant,
        event=asked.event,
        job=None if asked.job is None else check_token("job", asked.job),
        model=model,
        since_unix_ms=None if asked.since is None else int((now_s - asked.since) * 1000),
        until_unix_ms=None if asked.until is None else int((now_s - asked.until) * 1000),
    )
