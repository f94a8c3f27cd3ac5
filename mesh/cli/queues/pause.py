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
    help="Go on by itself after 90s, 15m, 1h, 2d.",
)
@with_json
@with_nats
def command(target: str, for_s: float | None, as_json: bool, nats: Nats) -> None:
    """Let no more jobs of a model start, or of one of its tiers.

    Requests are accepted as before and wait; whatever runs goes on and ends as usual. Workers stay, and take up the
    queue again the moment it is resumed or its time is over. A job's deadline still counts while it waits: one that
    passes it ends as expired. What a worker hands back, or held when it died, waits as well.

    It is JetStream that holds the jobs back, so the pause survives restarts of everything. Pausing again sets the
    time anew. The table shows what waits in each queue and what runs.

    \b
    Examples:
        mesh pause chat --for 10m
        mesh pause chat/batch
        mesh pause chat --json | jq '.queues[].waiting'
    """
    from mesh.cli.queues import pause_action
    from mesh.cli.terminal import loop

    if for_s == 0:
        raise click.BadParameter("a pause of no time is none", click.get_current_context(), param_hint="'--for'")
    loop.run(pause_action.pause(nats, target, for_s, as_json))
