"""`mesh resume`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_json, with_nats
from mesh.cli.setup.completing import targets


@click.command("resume")
@click.argument("target", metavar="MODEL[/TIER]", shell_complete=targets)
@with_json
@with_nats
def command(target: str, as_json: bool, nats: Nats) -> None:
    """Start the jobs of a paused model again, or of one of its tiers.

    Workers pull from the queue at once, the highest tier first. A queue that is not paused stays as it is; that is
    no error. The table shows the waiting and running jobs of each queue.

    \b
    Examples:
        mesh resume chat
        mesh resume chat/batch
    """
    from mesh.cli.queues import resume_action
    from mesh.cli.terminal import loop

    loop.run(resume_action.resume(nats, target, as_json))
