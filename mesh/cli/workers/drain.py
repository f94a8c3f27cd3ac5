"""`mesh drain`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats
from mesh.cli.setup.completing import models, workers


@click.command("drain")
@click.argument("worker", metavar="[WORKER]...", nargs=-1, shell_complete=workers)
@option("--model", metavar="NAME", shell_complete=models, help="Every worker of this model.")
@option("--wait", "is_waiting", is_flag=True, help="Return when they have ended.")
@with_json
@with_nats
def command(worker: tuple[str, ...], model: str | None, is_waiting: bool, as_json: bool, nats: Nats) -> None:
    """Have workers finish what they run, and end.

    A worker that is drained takes no more jobs, lets the running ones finish for the --grace seconds it was started
    with, hands the rest to other workers, and exits with 0: as SIGTERM does on its own machine. Draining it again
    changes nothing. What was started by `mesh up` is not started again there; elsewhere, that is up to whatever
    watches over the process.

    WORKER is a name that `mesh workers` shows. Exits with 1 if one did not answer, or with --wait has not ended
    when its time is over.

    \b
    Examples:
        mesh drain w-1f2e3d4c
        mesh drain --model chat --wait && echo safe to switch off
        mesh drain gpu-1 gpu-2 --json | jq '.workers[].running'
    """
    from click.core import ParameterSource

    from mesh.cli.terminal import loop
    from mesh.cli.workers import drain_action

    context = click.get_current_context()
    # MESH_MODEL is set for other commands: it does not say that a whole model is to be drained.
    if context.get_parameter_source("model") is not ParameterSource.COMMANDLINE:
        model = None
    if not worker and model is None:
        raise click.UsageError("say which: the names of workers, or --model NAME", context)
    if not loop.run(drain_action.run(nats, worker, model, is_waiting, as_json)):
        context.exit(1)
