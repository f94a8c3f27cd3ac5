"""`mesh reconcile`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats
from mesh.cli.serve.monitoring_options import MonitoringOptions, with_watching


@click.command("reconcile")
@with_nats
@with_watching
def command(nats: Nats, watching: MonitoringOptions) -> None:
    """Keep a mesh in order without a model: what every worker process does beside its work.

    It ends jobs that are past their deadline, answers requests for models nobody deployed, answers cancel, status
    and replay, and hands the jobs of workers that died to others at once. One worker is enough for all of this, and
    any number share it; run this where workers come and go, so that a job whose deadline passes while none is there
    still ends in time. It needs no GPU and next to no memory.

    \b
    Examples:
        mesh reconcile --nats tls://nats.example:4222

    Runs until SIGTERM or Ctrl-C, and then exits with 0.
    """
    from mesh.cli.serve import reconcile_action
    from mesh.cli.terminal import loop

    loop.run(reconcile_action.reconcile(nats, watching), log_level=watching.log_level, log_format=watching.log_format)
