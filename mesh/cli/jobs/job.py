"""`mesh job`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats, with_tenant


@click.command("job")
@click.argument("job", metavar="ID")
@option("--prompt", is_flag=True, help="Show the prompt too.")
@option("--events", is_flag=True, help="Show every event; by default a run of tokens is one line.")
@with_json
@with_tenant
@with_nats
def command(job: str, prompt: bool, events: bool, as_json: bool, tenant: str, nats: Nats) -> None:
    """Show one job's history: its request, its attempts and its Result; or why it waits.

    Times of events count from the storage of the request, by the server's clock. A waiting job shows its place in
    the queue, the free slots of its workers, any pause, and its time to the deadline.

    \b
    Records of a job are kept for a limited time, by default:
        request       until the Result is stored
        events        15 minutes
        Result        an hour, unless the request says otherwise
        dead letter   7 days

    The prompt is shown only with --prompt; `mesh result` prints the output. Exits with 1 if the job is not known.

    \b
    Examples:
        mesh job report-17
        mesh job report-17 --prompt --events
        mesh job report-17 --json | jq '.attempts[] | {worker, outcome}'
        mesh job report-17 --json | jq -r '.waits[].text'
    """
    from mesh.cli.jobs import job_action
    from mesh.cli.terminal import loop

    loop.run(job_action.show(nats, tenant, job, prompt, events, as_json))
