"""`mesh workers`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_json, with_nats


@click.command("workers")
@with_json
@with_nats
def command(as_json: bool, nats: Nats) -> None:
    """List live workers and their load.

    The column jobs is running/capacity. Lanes are the parts of the queue that a worker pulls from first. Done and
    tokens count since its start. A killed worker leaves the list after six seconds.

    \b
    Examples:
        mesh workers
        mesh workers --json | jq -r '.workers[].worker'
    """
    from mesh.cli.terminal import loop
    from mesh.cli.workers import workers_action

    loop.run(workers_action.show(nats, as_json))
