"""`mesh top`."""

import click

from mesh._version import extra
from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats


@click.command(
    "top",
    help=f"""Watch the mesh live, and steer it.

    It takes the whole terminal and looks at the mesh every second: queues, workers, tenants, and models. Enter on a
    row lists its jobs; Enter on a job shows it live: its timeline, its attempts, its tokens as they come. `mesh
    status` prints the same once; with --json it is for programs.

    \b
        Tab, 1 2 3 4  queues, workers, tenants, models
        up, down      pick a row                Enter, Esc  its jobs, one job; back
        < >           sort by another column    r           the other way round
        /             only rows with a text     ?           help
        p, u          pause or resume the picked queue; P, U its whole model
        d             drain the picked worker
        c             cancel the picked job
        q             leave

    Pausing, resuming, draining and cancelling are done after a y. Red is wrong, yellow deserves a look; NO_COLOR=1
    leaves colours out.

    The view of models shows the output tokens of jobs that ended, two minutes a bar, and the median and the 95th
    percentile of the time from the storage of a request to its first token. Both come from the audit: from its newest
    20,000 entries of the last hour, and from those that follow. A mesh without an audit shows neither.

    It needs textual: {extra("top")}.

    \b
    Examples:
        mesh top
        mesh top --nats nats://10.0.0.5:4222
    """,
)
@with_nats
def command(nats: Nats) -> None:
    """Run the action."""
    from mesh.cli.terminal import loop
    from mesh.cli.top import top_action

    loop.run(top_action.run(nats), log_level="critical")  # a line on stderr would tear the picture
