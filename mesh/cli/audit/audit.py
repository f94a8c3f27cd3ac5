"""`mesh audit`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, span, with_json, with_nats

# A copy: importing mesh.protocol.messages is slow.
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
@option("--event", type=click.Choice(EVENTS), help="Only this event.")
@option("--model", metavar="NAME", help="Only jobs for this model, and commands on its queue.")
@option("--since", callback=span, metavar="SPAN", help="Only entries of the last 90s, 15m, 1h or 2d.")
@option("--until", callback=span, metavar="SPAN", help="Only entries older than this, such as 15m.")
@option("--limit", type=click.IntRange(min=1, max=100_000), default=50, metavar="N", help="Show the newest N.")
@option("--follow", is_flag=True, help="Then show new entries, until Ctrl-C.")
@with_json
@with_nats
def command(nats: Nats, as_json: bool, follow: bool, limit: int, **asked: str | float | None) -> None:
    """Show the audit log: the events of jobs and the commands of operators, the newest last.

    \b
        accepted    a request became a job         returned   a worker handed it back
        refused     a request became no job        ended      its Result is stored
        started     a worker started it            buried     it became a dead letter
        taken_over  another worker continued it    gap        entries are missing here
        redriven, dropped, paused, resumed, drained: an operator's command, with user and host

    Entries are kept for 7 days. They hold names, codes and numbers, never a prompt, an output, metadata or an
    error's text.

    --job and --model may read the whole log; --since bounds that.

    --json prints one entry a line,
    as NATS stores it.

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
        raise click.UsageError("--until ends in the past; leave it out with --follow", click.get_current_context())
    if isinstance(since, float) and isinstance(until, float) and since <= until:
        raise click.UsageError("--since must be the earlier time: --since 2h --until 1h", click.get_current_context())
    loop.run(audit_action.show(nats, audit_action.AuditQuery(**asked), limit, follow, as_json))  # type: ignore[arg-type]  # click checked it
