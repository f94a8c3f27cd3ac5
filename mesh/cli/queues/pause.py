"""`mesh pause`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, span, with_json, with_nats
from mesh.cli.setup.completing import targets


@click.command("pause")
@click.argument("target", metavar="MODEL[/TIER]", shell_complete=targets)
@option(
    "--for",
    "for_s",
    callback=span,
    metavar="SPAN",
    show_default="until `mesh resume`",
    help="Resume automatically after 90s, 15m, 1h or 2d.",
)
@with_json
@with_nats
def command(target: str, for_s: float | None, as_json: bool, nats: Nats) -> None:
    """Stop starting jobs of a model, or of one of its tiers.

    Requests are still accepted, and wait. Running jobs continue. Workers stay up, and pull again when the pause
    ends. Deadlines still count: a job that passes its deadline while it waits expires. Jobs that a worker hands
    back, or held when it died, wait too.

    JetStream holds the pause, so it survives restarts of workers and NATS. Pausing again replaces the end time. The
    table shows the waiting and running jobs of each queue.

    \b
    Examples:
        mesh pause chat --for 10m
        mesh pause chat/batch
        mesh pause chat --json | jq '.queues[].waiting'
    """
    from mesh.cli.queues import pause_action
    from mesh.cli.terminal import loop

    if for_s == 0:
        raise click.BadParameter("--for must be more than 0", click.get_current_context(), param_hint="'--for'")
    loop.run(pause_action.pause(nats, target, for_s, as_json))
