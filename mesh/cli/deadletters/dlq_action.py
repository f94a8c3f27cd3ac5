"""`mesh dlq`: from the options to `control/deadletters/service`, one letter after the other."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from mesh.broker import topology
from mesh.broker.broker import open_broker
from mesh.broker.stores.deadletters import DeadLetter, DeadLetterFilter
from mesh.cli.connecting import connect_options
from mesh.cli.deadletters import dlq_output
from mesh.cli.deadletters.dlq_output import Treated
from mesh.cli.option_values import Filters, Nats
from mesh.cli.terminal import render
from mesh.clock import SYSTEM
from mesh.control.deadletters.redrive import Decision
from mesh.control.deadletters.service import DeadLetterService
from mesh.protocol.subjects import Names, check_token, is_token, to_token

REPORT_EVERY = 1000  # letters between two lines of progress

Treat = Callable[[DeadLetterService, DeadLetter], Awaitable[Decision]]


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a command that changes something is to go about it."""

    is_applied: bool
    as_json: bool
    deadline_s: float | None = None  # None: the request's own


async def show_list(nats: Nats, filters: Filters, limit: int, as_json: bool) -> None:
    """Print the newest `limit` dead letters, and how many there are."""
    total, newest = 0, list[DeadLetter]()
    async with _open(nats) as dead_letters:
        async for page in dead_letters.pages(_selection(filters)):
            total += len(page)
            newest = [*newest, *page][-limit:]
    newest.reverse()
    dlq_output.show_list(newest, total, as_json)


async def show_one(nats: Nats, job: str, tenant: str | None, as_json: bool) -> None:
    """Print all that is known of one job's dead letter; of the newest, if it has several.

    Raises:
        ResultNotFoundError: it has none.
    """
    check_token("id", job)
    async with _open(nats) as dead_letters:
        found = await dead_letters.find([job], DeadLetterFilter(tenant=tenant))
        story = await dead_letters.tell(found[-1])
    dlq_output.show_one(found[-1], len(found), story, as_json)


async def redrive(nats: Nats, jobs: tuple[str, ...], filters: Filters, manner: OutputOptions) -> bool:
    """Have jobs run again, or show what that would mean; False if that was to be done, and not for all of them.

    Raises:
        ResultNotFoundError: one of `jobs` has no dead letter; nothing was done.
        QuotaExceededError, BrokerError: a letter could not be treated; those before it were.
    """

    async def treat(dead_letters: DeadLetterService, letter: DeadLetter) -> Decision:
        if manner.is_applied:
            return await dead_letters.redrive(letter, manner.deadline_s)
        return await dead_letters.plan(letter, manner.deadline_s is not None)

    treated = await _treat_all(nats, jobs, filters, manner, treat)
    return not (manner.is_applied and any(each.verb == "skip" for each in treated))


async def drop(nats: Nats, jobs: tuple[str, ...], filters: Filters, manner: OutputOptions) -> None:
    """Remove dead letters, or show which.

    Raises:
        ResultNotFoundError, BrokerError: as `redrive`.
    """

    async def treat(dead_letters: DeadLetterService, letter: DeadLetter) -> Decision:
        if manner.is_applied and not await dead_letters.drop(letter):
            return Decision("gone", "somebody else redrove or removed it")
        return Decision("drop", letter.reason)

    await _treat_all(nats, jobs, filters, manner, treat)


async def _treat_all(
    nats: Nats, jobs: tuple[str, ...], filters: Filters, manner: OutputOptions, treat: Treat
) -> list[Treated]:
    """Treat each letter that is meant, and report, also when something ends it early."""
    treated: list[Treated] = []
    async with _open(nats) as dead_letters:
        try:
            async for letter in _letters(dead_letters, jobs, filters):
                decision = await treat(dead_letters, letter)
                treated.append(dlq_output.treated(letter, decision))
                if len(treated) % REPORT_EVERY == 0:
                    render.note(f"{len(treated)} so far …")
        except BaseException:
            if treated:
                dlq_output.report(treated, manner.is_applied, manner.as_json)
            raise
    dlq_output.report(treated, manner.is_applied, manner.as_json)
    return treated


async def _letters(
    dead_letters: DeadLetterService, jobs: tuple[str, ...], filters: Filters
) -> AsyncIterator[DeadLetter]:
    selection = _selection(filters)
    if jobs:
        for job in jobs:
            check_token("id", job)
        for letter in await dead_letters.find(jobs, selection):
            yield letter
        return
    async for page in dead_letters.pages(selection):
        for letter in page:
            yield letter


@contextlib.asynccontextmanager
async def _open(nats: Nats) -> AsyncIterator[DeadLetterService]:
    """The dead letters of the mesh that the options name.

    Raises:
        TopologyError: there is none.
    """
    names = Names(nats.namespace)
    async with open_broker(connect_options(nats), names) as broker:
        await topology.read_settings(broker)
        yield DeadLetterService(broker)


def _selection(filters: Filters) -> DeadLetterFilter:
    since_unix_ms = None if filters.since is None else int((SYSTEM.wall_unix_ms() / 1000 - filters.since) * 1000)
    # MESH_MODEL may hold what `mesh up` loads; it is served under this name.
    model = filters.model if filters.model is None or is_token(filters.model) else to_token(filters.model)
    return DeadLetterFilter(model, filters.tier, filters.tenant, filters.code, since_unix_ms)
