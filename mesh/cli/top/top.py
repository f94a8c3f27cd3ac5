"""`mesh top`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats


@click.command("top")
@with_nats
def command(nats: Nats) -> None:
    """Watch the mesh live, and steer it.

    The whole terminal, looked at anew every second: what waits and what runs in each queue, how loaded each worker
    is, what each tenant has. `mesh status` prints the same once; with --json it is for programs.

    \b
        Tab, 1 2 3   queues, workers, tenants      up, down   pick a row
        < >          sort by another column        r          the other way round
        /            only rows with a text         ?          help
        p, u         pause or resume the picked queue; P, U its whole model
        d            drain the picked worker
        q            leave

    What changes anything is done after a y.

    \b
    Examples:
        mesh top
        mesh top --nats nats://10.0.0.5:4222
    """
    from mesh.cli.terminal import loop
    from mesh.cli.top import top_action

    loop.run(top_action.run(nats), log_level="critical")  # a line on stderr would tear the picture
