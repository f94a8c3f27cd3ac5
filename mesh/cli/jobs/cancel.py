"""`mesh cancel`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats, with_tenant


@click.command("cancel")
@click.argument("job", metavar="ID")
@with_tenant
@with_nats
def command(job: str, tenant: str, nats: Nats) -> None:
    """Cancel a job in the queue or on a worker.

    Its Result then says `cancelled` and holds the output so far. A job that has already ended keeps its Result;
    that is no error. Exits with 1 if the job is not known.

    \b
    Example:
        mesh cancel report-17
    """
    from mesh.cli.jobs import cancel_action
    from mesh.cli.terminal import loop

    loop.run(cancel_action.cancel(nats, tenant, job))
