"""`mesh status`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats


@click.command("status")
@option("--no-rates", is_flag=True, help="Skip the measurement of rates, and answer at once.")
@option("--check", is_flag=True, help="Exit with 1 if anything is broken; for monitoring.")
@with_json
@with_nats
def command(no_rates: bool, check: bool, as_json: bool, nats: Nats) -> None:
    """Show the mesh: its queues, workers, tenants and streams, and its problems.

    Takes two readings to measure rates: one second apart, or two while jobs run, because workers report every two
    seconds. It changes nothing.

    \b
        waiting   jobs that were never delivered
        given     jobs that were delivered: they run, or will move to another worker
        oldest    age of the oldest waiting job
        pulls     open pull requests of workers; 0: no slot is free, or no worker is there

    Problems come last, each with a command that helps. Examples are queues without a worker, paused or full queues,
    missing replicas, old versions and dead letters.

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
