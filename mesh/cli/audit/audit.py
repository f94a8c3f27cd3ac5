"""`mesh audit`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, span, with_json, with_nats

# mesh.protocol.messages has them too, and a slow import.
EVENTS = (
    "accepted",
    "refused",
    "started",
    "taken_over",
    "returned",
    "ended",
    "buried",
    "gap",
    "redriven",
    "dropped",
    "paused",
    "resumed",
    "drained",
)


@click.command("audit")
@option("--tenant", metavar="NAME", show_default="all tenants", help="Only jobs of this tenant.")
@option("--job", metavar="ID", help="Only this job.")
@option("--event", type=click.Choice(EVENTS), help="Only this.")
@option("--model", metavar="NAME", help="Only jobs for this model, and what was done to its queue.")
@option("--since", callback=span, metavar="SPAN", help="Only what was written in the last 90s, 15m, 1h, 2d.")
@option("--until", callback=span, metavar="SPAN", help="Only what was written before that, such as 15m ago.")
@option("--limit", type=click.IntRange(min=1, max=100_000), default=50, metavar="N", help="Show the newest N.")
@option("--follow", is_flag=True, help="Then show what comes, until Ctrl-C.")
@with_json
@with_nats
def command(nats: Nats, as_json: bool, follow: bool, limit: int, **asked: str | float | None) -> None:
    """Show what happened to jobs, and what operators did: who, when and what, the newest last.

    \b
    accepted    a request became a job       returned   a worker gave it back
    refused     it did not, or never ran     ended      it has its Result
    started     a worker began it            buried     it was given up, as a dead letter
    taken_over  another went on with it      gap        entries are missing here
    redriven, dropped, paused, resumed, drained: by an operator, with user and host

    It is kept for 7 days. It holds names, codes and numbers, never a prompt, an output, metadata or the text of an
    error. --job, and --model, may have to look through all of it; --since bounds that. --json prints one entry a
    line, as it is on NATS.

    \b
    Examples:
        mesh audit
        mesh audit --job report-17
        mesh audit --tenant acme --event refused --since 1h
        mesh audit --follow --json | jq -r 'select(.event == "ended") | [.tenant, .tokens] | @tsv'
    """
    from mesh.cli.audit import audit_action
    from mesh.cli.terminal import loop

    since, until = asked["since"], asked["until"]
    if follow and until is not None:
        raise click.UsageError("--until ends in the past, so there is nothing to follow", click.get_current_context())
    if isinstance(since, float) and isinstance(until, float) and since <= until:
        raise click.UsageError("--since is the earlier of the two: --since 2h --until 1h", click.get_current_context())
    loop.run(audit_action.show(nats, audit_action.AuditQuery(**asked), limit, follow, as_json))  # type: ignore[arg-type]  # click checked it
