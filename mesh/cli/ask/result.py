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
    help="Wait until the job ends, for S seconds at most. Put it after ID.",
)
@option("--follow", is_flag=True, help="Print the output so far, then stream the rest.")
@with_json
@with_tenant
@with_nats
def command(job: str, wait: float | None, follow: bool, as_json: bool, tenant: str, nats: Nats) -> None:
    """Read, await or follow a job by its id, from any client.

    Prints the answer; --json prints the whole Result, as NATS stores it. A Result is kept for an hour after its
    job ended, unless the request says otherwise. Exits with 1 if the job failed, was cancelled or expired, has not
    ended yet, or is not known.

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
        raise click.UsageError("--follow streams text; for JSON use --json, with --wait until the job ends")
    loop.run(result_action.read(nats, tenant, job, wait, follow, as_json))
