"""`mesh dlq`: `ls`, `show`, `redrive`, `drop`."""

from dataclasses import fields

import click
from click.core import ParameterSource

from mesh.cli.option_values import Filters, Nats
from mesh.cli.options import option, with_all, with_filters, with_json, with_nats


class _InOrder(click.Group):
    """Lists its commands as they stand here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("dlq", cls=_InOrder)
def command() -> None:
    """Look at the jobs that were given up, run them again, or remove them.

    A job that failed on every attempt it was allowed ends `failed`, and its request is kept as a dead letter
    for 7 days, with the reason. Once the cause is gone, `redrive` has it run again under its own id.

    `redrive` and `drop` show what they would do, and change nothing without --apply.

    \b
    Examples:
        mesh dlq ls --since 1h
        mesh dlq show report-17
        mesh dlq redrive report-17 --apply
        mesh dlq redrive --model chat --since 2h --apply
        mesh dlq drop --all --tenant try --apply
    """


@command.command("ls", short_help="List them.")
@with_filters
@option("--limit", type=click.IntRange(min=1), default=50, metavar="N", help="Show the newest N.")
@with_json
@with_nats
def ls(filters: Filters, limit: int, as_json: bool, nats: Nats) -> None:
    """List the dead letters, the newest first.

    Model and tier are those of the queue the job waited in; attempts is how often it was tried; buried is how
    long ago it was given up. `mesh dlq show` has the whole reason.

    \b
    Examples:
        mesh dlq ls
        mesh dlq ls --model chat --since 1h
        mesh dlq ls --limit 1000 --json | jq -r '.letters[].job'
    """
    from mesh.cli.deadletters import dlq_action as dead
    from mesh.cli.terminal import loop

    loop.run(dead.show_list(nats, filters, limit, as_json))


@command.command("show", short_help="All that is known of one.")
@click.argument("job", metavar="JOB")
@option("--tenant", metavar="NAME", show_default="whichever has it", help="Whose job it is.")
@with_json
@with_nats
def show(job: str, tenant: str | None, as_json: bool, nats: Nats) -> None:
    """Show one dead letter: the request, the reason, what the journal still tells, and what to do next.

    Events are kept 15 minutes unless `mesh init` was told otherwise; then only the letter is left. Exits with 1
    if the job has none.

    \b
    Examples:
        mesh dlq show report-17
        mesh dlq show report-17 --json | jq .request
    """
    from mesh.cli.deadletters import dlq_action as dead
    from mesh.cli.terminal import loop

    loop.run(dead.show_one(nats, job, tenant, as_json))


@command.command("redrive", short_help="Have the jobs run again.")
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@with_filters
@with_all
@option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    show_default="the request's own",
    help="A new deadline: seconds from now after which a job expires.",
)
@option("--apply", is_flag=True, help="Do it.")
@with_json
@with_nats
def redrive(
    jobs: tuple[str, ...],
    filters: Filters,
    is_all: bool,
    deadline: float | None,
    apply: bool,
    as_json: bool,
    nats: Nats,
) -> None:
    """Have jobs that were given up run again, under their own ids.

    Name the jobs, or choose them with filters or --all. Without --apply it shows what would happen to each:

    \b
        redrive  its old Result and events go, the request is queued again, the letter goes
        settle   it ran again or finished since; only the letter goes
        skip     it stays, for the reason shown

    A job whose deadline has passed would expire at once: it is skipped unless --deadline gives it a new one.
    Cut off, run it again: nothing is lost, and no job runs twice. Exits with 1 if --apply skipped any.

    \b
    Examples:
        mesh dlq redrive report-17
        mesh dlq redrive report-17 --apply --deadline 600
        mesh dlq redrive --all --model chat --since 2h --apply
    """
    from mesh.cli.deadletters import dlq_action as dead
    from mesh.cli.terminal import loop

    _check_target(jobs, is_all)
    if not loop.run(dead.redrive(nats, jobs, filters, dead.OutputOptions(apply, as_json, deadline))):
        click.get_current_context().exit(1)


@command.command("drop", short_help="Remove them.")
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@with_filters
@with_all
@option("--apply", is_flag=True, help="Do it.")
@with_json
@with_nats
def drop(jobs: tuple[str, ...], filters: Filters, is_all: bool, apply: bool, as_json: bool, nats: Nats) -> None:
    """Remove dead letters. The Results of the jobs stay as they are.

    Name the jobs, or choose them with filters or --all. Without --apply it shows which letters would go. There
    is no way back: the request is kept nowhere else.

    \b
    Examples:
        mesh dlq drop report-17 --apply
        mesh dlq drop --all --tenant try
        mesh dlq drop --all --tenant try --apply
    """
    from mesh.cli.deadletters import dlq_action as dead
    from mesh.cli.terminal import loop

    _check_target(jobs, is_all)
    loop.run(dead.drop(nats, jobs, filters, dead.OutputOptions(apply, as_json)))


def _check_target(jobs: tuple[str, ...], is_all: bool) -> None:
    """Refuse to guess what is meant. A filter from the environment only narrows: it was set for other commands."""
    context = click.get_current_context()
    sources = [context.get_parameter_source(each.name) for each in fields(Filters)]
    if jobs and is_all:
        raise click.UsageError("give the jobs or --all, not both", context)
    if not jobs and not is_all and ParameterSource.COMMANDLINE not in sources:
        raise click.UsageError("say which: the ids of jobs, filters such as --model, or --all", context)
