"""`mesh tail`."""

import click
from click.core import ParameterSource

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats, with_tenant


@click.command("tail")
@click.argument("job", metavar="[ID]", required=False)
@option("--all-tenants", is_flag=True, help="Follow the jobs of every tenant; names are tenant/job then.")
@with_json
@with_tenant
@with_nats
def command(job: str | None, all_tenants: bool, as_json: bool, tenant: str, nats: Nats) -> None:
    """Follow tokens as they are made: of one job, or of all jobs of a tenant.

    With ID: what the job has made so far, then the rest as it comes, until it ends; a queued job is waited for.
    Who took it, and takeovers, are told on stderr. Exits with 1 if the job failed, was cancelled or expired, or is
    not known.

    Without: every job of --tenant that runs or starts from now on, each line with the name of its job before it and
    lines never mixed; one that had begun is shown from its beginning when its next token comes. Ends with Ctrl-C.

    --json prints one event a line, as it is on the wire, with its tenant.

    \b
    Examples:
        mesh tail report-17
        mesh tail --tenant acme
        mesh tail --tenant acme --json | jq -r 'select(.type == "result") | [.id, .status] | @tsv'
    """
    from mesh.cli.jobs import tail_action
    from mesh.cli.terminal import loop

    context = click.get_current_context()
    if job is not None and all_tenants:
        raise click.UsageError("a job is of one tenant: give ID with --tenant, or --all-tenants without", context)
    if all_tenants and context.get_parameter_source("tenant") == ParameterSource.COMMANDLINE:
        raise click.UsageError("give --tenant or --all-tenants, not both", context)
    if job is not None:
        loop.run(tail_action.follow_job(nats, tenant, job, as_json))
    else:
        loop.run(tail_action.follow_all(nats, "*" if all_tenants else tenant, as_json))
