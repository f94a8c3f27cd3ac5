"""`mesh result`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats, with_tenant


@click.command("result")
@click.argument("job", metavar="ID")
@option(
    "--wait",
    is_flag=False,
    flag_value=0.0,
    type=click.FloatRange(min=0),
    metavar="[S]",
    help="Wait until it ends, S seconds at most. Write it after ID.",
)
@option("--follow", is_flag=True, help="Print what was made so far, then stream the rest.")
@with_json
@with_tenant
@with_nats
def command(job: str, wait: float | None, follow: bool, as_json: bool, tenant: str, nats: Nats) -> None:
    """Read, await or follow a job by its id, whoever submitted it.

    Prints the answer; with --json the whole Result, as NATS keeps it. Exits with 1 if the job failed, was
    cancelled or expired, has not ended yet, or is not known (a Result is kept for an hour after its job ended,
    unless the request said otherwise).

    \b
    Examples:
        mesh result j0f3c…
        mesh result report-17 --wait 60
        mesh result report-17 --follow
        mesh result report-17 --json | jq .usage
    """
    from mesh.cli.ask import result_action
    from mesh.cli.terminal import loop

    if follow and as_json:
        raise click.UsageError("--follow streams text; --json prints the Result once it is there, with --wait")
    loop.run(result_action.read(nats, tenant, job, wait, follow, as_json))
