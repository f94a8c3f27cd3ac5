"""`mesh job`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats, with_tenant


@click.command("job")
@click.argument("job", metavar="ID")
@option("--prompt", is_flag=True, help="Show what was asked, too.")
@option("--events", is_flag=True, help="Show every event; else runs of tokens are one line each.")
@with_json
@with_tenant
@with_nats
def command(job: str, prompt: bool, events: bool, as_json: bool, tenant: str, nats: Nats) -> None:
    """Show the whole life of one job: what was asked, every attempt and how it ended, its Result; or why it waits.

    Times of events are since the request was stored, by the server's clock. While a job waits, this says what for:
    how many are before it, whether a worker is there and has a free slot, whether its queue is paused, when it
    expires.

    What is left of a job gets less with time: its request leaves the queue with its Result, its events are kept 15
    minutes, its Result an hour, a dead letter 7 days, unless the mesh or the request say otherwise. Neither prompt
    nor output are shown unless asked for; `mesh result` prints the output. Exits with 1 if the job is not known.

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
