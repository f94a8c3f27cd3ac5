"""`mesh top`."""

import click

from mesh._version import extra
from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats


@click.command(
    "top",
    help=f"""Watch the mesh live, and steer it.

    It fills the terminal and refreshes every second: queues, workers, tenants and models. Enter on a row lists its
    jobs; Enter on a job shows its timeline, attempts and tokens live. `mesh status` prints the same once, and as JSON
    with --json.

    \b
        Tab, 1 2 3 4  queues, workers, tenants, models
        up, down      pick a row                Enter, Esc  its jobs, one job; back
        < >           sort by another column    r           reverse the order
        /             filter rows by text       ?           help
        p, u          pause or resume the picked queue; P, U for its whole model
        d             drain the picked worker
        c             cancel the picked job
        q             leave

    Pausing, resuming, draining and cancelling need y to confirm. Red marks errors, yellow warnings; NO_COLOR=1
    disables colours.

    The view of models shows output tokens of ended jobs, two minutes a bar. It also shows the median and the 95th
    percentile of the time from a request's storage to its first token. Both come from the audit's newest 20,000
    entries of the last hour, and from later entries. A mesh without an audit shows neither.

    It needs textual: {extra("top")}.

    \b
    Examples:
        mesh top
        mesh top --nats nats://10.0.0.5:4222
    """,
)
@with_nats
def command(nats: Nats) -> None:
    """Runs the action."""
    from mesh.cli.terminal import loop
    from mesh.cli.top import top_action

    loop.run(top_action.run(nats), log_level="critical")  # a line on stderr would damage the screen
