"""`mesh jobs`."""

import click

from mesh.cli.option_values import TIERS, Nats
from mesh.cli.options import option, with_json, with_nats

STATES = ("queued", "running", "retrying", "ending")  # a copy: mesh.control.jobs.job_state has slow imports


@click.command("jobs")
@option("--model", metavar="NAME", help="Only jobs for this model.")
@option("--tier", type=click.Choice(TIERS), help="Only jobs of this tier.")
@option("--tenant", metavar="NAME", show_default="all tenants", help="Only jobs of this tenant.")
@option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@option("--limit", type=click.IntRange(min=1, max=10_000), default=50, metavar="N", help="Show N at most.")
@with_json
@with_nats
def command(
    model: str | None,
    tier: str | None,
    tenant: str | None,
    state: str | None,
    limit: int,
    as_json: bool,
    nats: Nats,
) -> None:
    """List running jobs, then waiting jobs, each the oldest first.

    \b
        queued    no worker has started it
        running   a worker runs it
        retrying  its last attempt is over, or its worker is gone, and it waits for the next
        ending    its Result is stored, or about to be

    The column left, on wide terminals, is the time until the job expires; try is its attempt; out is its number of
    tokens. Only the rows shown are read, so a long queue costs no more. For ended jobs use `mesh job ID`, as long
    as their Results are kept.

    \b
    Examples:
        mesh jobs
        mesh jobs --tenant acme --state queued --limit 500
        mesh jobs --json | jq -r '.jobs[] | select(.age_ms > 60000) | .job'
    """
    from mesh.cli.jobs import jobs_action
    from mesh.cli.terminal import loop
    from mesh.control.jobs.listing import JobSelection

    loop.run(jobs_action.show(nats, JobSelection(model, tier, tenant, state), limit, as_json))  # type: ignore[arg-type]  # click checked it
