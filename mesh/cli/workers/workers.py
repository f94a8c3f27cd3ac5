"""`mesh workers`."""

import click

from mesh.cli.options import Nats, with_json, with_nats


@click.command("workers")
@with_json
@with_nats
def command(as_json: bool, nats: Nats) -> None:
    """List the workers alive, and what they do.

    Jobs is running/capacity; lanes are the parts of the queue a worker takes from first; done and tokens count
    since it started. A worker that stops without a word is gone from the list after six seconds.

    \b
    Examples:
        mesh workers
        mesh workers --json | jq -r '.[].worker'
    """
    from mesh.cli.terminal import loop
    from mesh.cli.workers import workers_action as fleet

    loop.run(fleet.show(nats, as_json))
