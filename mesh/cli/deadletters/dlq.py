"""`mesh dlq`: `ls`, `show`, `redrive`, `drop`."""

from dataclasses import fields

import click
from click.core import ParameterSource

from mesh.cli.option_values import Filters, Nats
from mesh.cli.options import option, with_all, with_filters, with_json, with_nats


class _InOrder(click.Group):
    """Lists its commands in the order of this module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("dlq", cls=_InOrder)
def command() -> None:
    """List, show, redrive or drop dead letters.

    A job that failed on every allowed attempt ends `failed`. Its request is kept for 7 days as a dead letter, with
    the reason. When the cause is fixed, `redrive` runs it again under its own id.

    Without --apply, `redrive` and `drop` only show their plan.

    \b
    Examples:
        mesh dlq ls --since 1h
        mesh dlq show report-17
        mesh dlq redrive report-17 --apply
        mesh dlq redrive --model chat --since 2h --apply
        mesh dlq drop --all --tenant try --apply
    """


@command.command("ls", short_help="List dead letters.")
@with_filters
@option("--limit", type=click.IntRange(min=1), default=50, metavar="N", help="Show the newest N.")
@with_json
@with_nats
def ls(filters: Filters, limit: int, as_json: bool, nats: Nats) -> None:
    """List the dead letters, the newest first.

    Model and tier name the job's queue; attempts counts its attempts; buried is the age of the dead letter.
    `mesh dlq show` prints the whole reason.

    \b
    Examples:
        mesh dlq ls
        mesh dlq ls --model chat --since 1h
        mesh dlq ls --limit 1000 --json | jq -r '.letters[].job'
    """
    from mesh.cli.deadletters import dlq_action as dead
    from mesh.cli.terminal import loop

    loop.run(dead.show_list(nats, filters, limit, as_json))


@command.command("show", short_help="Show one dead letter.")
@click.argument("job", metavar="JOB")
@option("--tenant", metavar="NAME", show_default="any", help="The job's tenant.")
@with_json
@with_nats
def show(job: str, tenant: str | None, as_json: bool, nats: Nats) -> None:
    """Show one dead letter: its request, its reason, the job's remaining events, and the next command.

    Events are kept for 15 minutes; after that only the letter remains. Exits with 1 if the job has no dead letter.

    \b
    Examples:
        mesh dlq show report-17
        mesh dlq show report-17 --json | jq .request
    """
    from mesh.cli.deadletters import dlq_action as dead
    from mesh.cli.terminal import loop

    loop.run(dead.show_one(nats, job, tenant, as_json))


@command.command("redrive", short_help="Run jobs again.")
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@with_filters
@with_all
@option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    show_default="the request's own",
    help="A new deadline, in seconds from now.",
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
    """Run dead letters' jobs again, under their own ids.

    Name the jobs, or choose them with filters or --all. Without --apply, it shows the plan for each job:

    \b
        redrive  remove the old Result and events, queue the request again, remove the letter
        settle   the job ran again or finished since; only remove the letter
        skip     keep the letter, for the reason shown

    A job whose deadline has passed is skipped, unless --deadline sets a new one. If the command is interrupted,
    run it again: no job is lost, and none runs twice. Exits with 1 if --apply skipped a job.

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


@command.command("drop", short_help="Remove dead letters.")
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@with_filters
@with_all
@option("--apply", is_flag=True, help="Do it.")
@with_json
@with_nats
def drop(jobs: tuple[str, ...], filters: Filters, is_all: bool, apply: bool, as_json: bool, nats: Nats) -> None:
    """Remove dead letters. The Results of the jobs stay as they are.

    Name the jobs, or choose them with filters or --all. Without --apply, it lists the letters that it would
    remove. This cannot be undone: the letter is the only copy of the request.

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
    """Requires an explicit choice of letters. Filters from the environment do not count: other commands use them."""
    context = click.get_current_context()
    sources = [context.get_parameter_source(each.name) for each in fields(Filters)]
    if jobs and is_all:
        raise click.UsageError("give the jobs or --all, not both", context)
    if not jobs and not is_all and ParameterSource.COMMANDLINE not in sources:
        raise click.UsageError("name the jobs, or choose them with filters such as --model, or --all", context)
