"""`mesh status`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats


@click.command("status")
@option("--no-rates", is_flag=True, help="Look once and do not measure: answers at once.")
@option("--check", is_flag=True, help="Exit with 1 if anything is broken; for monitoring.")
@with_json
@with_nats
def command(no_rates: bool, check: bool, as_json: bool, nats: Nats) -> None:
    """Show a whole mesh: what waits, what runs, who works, what NATS holds, and what is wrong.

    Looks twice, a second apart (two, while jobs run: workers say every two seconds what they did), so that it can
    tell how fast jobs come and go. Changes nothing.

    \b
    waiting   jobs that no worker has had yet
    given     jobs that a worker has: they run, or are on the way to another worker
    oldest    age of the job that has waited longest
    pulls     of workers that wait for a job; 0: no slot is free, or no worker is there

    What is wrong comes last, each with the command that helps: no worker for what waits, paused queues, full
    queues and streams, jobs that lost a worker, replicas that are away, old versions, dead letters.

    \b
    Examples:
        mesh status
        mesh status --check --no-rates > /dev/null || page-someone
        mesh status --json | jq '.snapshot.queues[] | {model, tier, waiting, oldest_waiting_ms}'
    """
    from mesh.cli.health import status_action
    from mesh.cli.terminal import loop

    if loop.run(status_action.show(nats, not no_rates, as_json)) and check:
        click.get_current_context().exit(1)
