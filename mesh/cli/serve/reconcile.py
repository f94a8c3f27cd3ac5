"""`mesh reconcile`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats
from mesh.cli.serve.monitoring_options import MonitoringOptions, with_watching


@click.command("reconcile")
@with_nats
@with_watching
def command(nats: Nats, watching: MonitoringOptions) -> None:
    """Reconcile a mesh without a model: expire, cancel and hand back jobs.

    It ends jobs past their deadline, and refuses requests for models without a queue. It answers cancel, status and
    replay. It hands the jobs of dead workers to others at once.

    Every worker process does this too, and any number of processes share the work. Run this command where workers
    come and go: then a job ends at its deadline even while no worker runs. It needs no GPU and little memory.

    \b
    Examples:
        mesh reconcile --nats tls://nats.example:4222

    Runs until SIGTERM or Ctrl-C, and then exits with 0.
    """
    from mesh.cli.serve import reconcile_action
    from mesh.cli.terminal import loop

    loop.run(reconcile_action.reconcile(nats, watching), log_level=watching.log_level, log_format=watching.log_format)
