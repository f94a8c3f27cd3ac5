"""`mesh tail`: tokens as they are made, of one job or of many."""

from collections.abc import AsyncIterator

import msgspec

from mesh.cli.ask import answer
from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.lines import Lines
from mesh.control.jobs.tail import EventTail, TailEvent
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Delta, LaterEvent, Result, Started
from mesh.protocol.subjects import check_token
from mesh.protocol.version import UPGRADE

WIDE = 1000  # columns of a line where no terminal sets them


async def follow_job(nats: Nats, tenant: str, job: str, as_json: bool) -> None:
    """Print one job's output from its first token to its last, and how it ended.

    Raises:
        ResultNotFoundError: there is no such job.
        JobError: it did not finish.
    """
    check_token("id", job)
    check_token("tenant", tenant)
    result: Result | None = None
    async with open_mesh(nats) as broker:
        tail = EventTail(broker, tenant, job)
        try:
            events = tail.follow_job(JobKey(tenant, job))
            result = await (_print_json(events) if as_json else _print_text(events))
        finally:
            tail.close()
    if result is not None:
        answer.check(result)
        if not as_json:
            render.note(answer.statistics(result))


async def follow_all(nats: Nats, tenant: str, as_json: bool) -> None:
    """Print the output of all jobs of a tenant from now on; "*" for all tenants. Ends with a signal."""
    if tenant != "*":
        check_token("tenant", tenant)
    async with open_mesh(nats) as broker:
        tail = EventTail(broker, tenant)
        try:
            whose = "all tenants" if tenant == "*" else f"tenant {tenant}"
            render.note(f"following the jobs of {whose}; Ctrl-C ends this")
            await (_print_json(tail.follow()) if as_json else _print_lines(tail.follow(), tenant == "*"))
        finally:
            tail.close()


async def _print_json(events: AsyncIterator[TailEvent | None]) -> Result | None:
    """One event a line, as it is on the wire, with its tenant; the last Result."""
    result = None
    async for told in events:
        if told is None:
            continue
        if isinstance(told.event, Result):
            result = told.event
        render.say_json(_as_line(told))
    return result


def _as_line(told: TailEvent) -> str:
    event = _as_json(told)
    return event if isinstance(told.event, Result) else f'{{"tenant":"{told.tenant}",{event[1:]}'


def _as_json(told: TailEvent) -> str:
    """An event as one JSON object; one of a later version with all its fields, which only its body has."""
    if not isinstance(told.event, LaterEvent):
        return codec.encode(told.event).decode()
    if codec.sniff(told.body) == "json":
        return " ".join(told.body.decode().split("\n"))
    return msgspec.json.encode(msgspec.msgpack.decode(told.body)).decode()


async def _print_text(events: AsyncIterator[TailEvent | None]) -> Result | None:
    """The output of one job, as it would be in a file; what happens beside it goes to stderr."""
    shown, index, is_midline = 0, 0, False
    async for told in events:
        match told.event if told is not None else None:
            case Started() as event if not event.closing:
                if is_midline and event.index < index:
                    render.write("\n")
                    is_midline = False
                render.note(_begun(event, index))
                index = event.index
            case Delta() as event:
                render.write(event.text)
                index, shown = event.index + len(event.token_ids), shown + 1
                is_midline = not event.text.endswith("\n") if event.text else is_midline
            case Result() as event:
                text = "" if shown else _unshown(event)
                render.write(text)
                if (text and not text.endswith("\n")) or is_midline:
                    render.write("\n")
                return event
            case LaterEvent() as event:
                render.note(_later(event))
            case _:
                continue
    return None


async def _print_lines(events: AsyncIterator[TailEvent | None], has_tenant: bool) -> None:
    """Whole lines of each job, with its name before them."""
    lines = Lines(render.width() if render.is_terminal() else WIDE)
    index: dict[str, int] = {}  # tokens shown of each job that runs
    async for told in events:
        if told is None:
            shown = lines.idle()
        else:
            name = f"{told.tenant}/{told.job}" if has_tenant else told.job
            shown = _lines_of(lines, name, told, index)
        for line in shown:
            render.say(line)


def _lines_of(lines: Lines, name: str, told: TailEvent, index: dict[str, int]) -> list[str]:
    event = told.event
    if isinstance(event, Delta):
        index[name] = event.index + len(event.token_ids)
        return lines.add(name, event.text)
    if isinstance(event, Started):
        if event.closing:
            return []
        shown = lines.end(name, _begun(event, index.get(name, 0)))
        index[name] = event.index
        return shown
    if isinstance(event, LaterEvent):
        return lines.end(name, _later(event))
    unshown = lines.add(name, _unshown(event)) if name not in index else []
    index.pop(name, None)
    return [*unshown, *lines.end(name, _ended(event))]


def _begun(event: Started, index: int) -> str:
    if event.attempt == 1:
        return f"begun by {event.worker}"
    if event.index < index and not event.index:
        return f"attempt {event.attempt}: {event.worker} begins anew; what was shown so far no longer stands"
    return f"attempt {event.attempt}: {event.worker} goes on after {figures.many(event.index, 'token')}"


def _later(event: LaterEvent) -> str:
    return f"an event {event.type!r} of a later version of mesh; `{UPGRADE}` to read it"


def _ended(result: Result) -> str:
    error = f": {result.error.message}" if result.error is not None else ""
    tokens = figures.many(result.usage.completion_tokens, "token")
    return f"{result.status}{error}, {tokens}, {figures.span(result.timing.total_ms)}"


def _unshown(result: Result) -> str:
    """The output of a job that streams nothing, or whose events are kept no longer."""
    return result.text
