"""`mesh tail`."""

import click
from click.core import ParameterSource

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats, with_tenant


@click.command("tail")
@click.argument("job", metavar="[ID]", required=False)
@option("--all-tenants", is_flag=True, help="Follow the jobs of all tenants, named tenant/job.")
@with_json
@with_tenant
@with_nats
def command(job: str | None, all_tenants: bool, as_json: bool, tenant: str, nats: Nats) -> None:
    """Follow the tokens of one job, or of all jobs of a tenant.

    With ID, it prints the output so far, then new tokens until the job ends. It waits for a queued job. Its worker
    and takeovers are printed on stderr. Exits with 1 if the job failed, was cancelled or expired, or is not known.

    Without ID, it follows every job of --tenant that runs now or starts later, until Ctrl-C. Each line begins with
    its job's name and holds one job's text. A running job is printed from its beginning when its next token comes.

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
        raise click.UsageError("give --all-tenants without ID; a job has one tenant, given by --tenant", context)
    if all_tenants and context.get_parameter_source("tenant") == ParameterSource.COMMANDLINE:
        raise click.UsageError("give --tenant or --all-tenants, not both", context)
    if job is not None:
        loop.run(tail_action.follow_job(nats, tenant, job, as_json))
    else:
        loop.run(tail_action.follow_all(nats, "*" if all_tenants else tenant, as_json))
