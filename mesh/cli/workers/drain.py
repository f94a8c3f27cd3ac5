"""`mesh drain`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats
from mesh.cli.setup.completing import models, workers


@click.command("drain")
@click.argument("worker", metavar="[WORKER]...", nargs=-1, shell_complete=workers)
@option("--model", metavar="NAME", shell_complete=models, help="Drain every worker of this model.")
@option("--wait", "is_waiting", is_flag=True, help="Wait until the workers have exited.")
@with_json
@with_nats
def command(worker: tuple[str, ...], model: str | None, is_waiting: bool, as_json: bool, nats: Nats) -> None:
    """Let workers finish their jobs and exit.

    A drained worker takes no more jobs and gives running jobs its own --grace seconds to finish. Then it hands the
    rest to other workers, and exits with 0, as after SIGTERM. Draining it again changes nothing. `mesh up` does not
    restart a drained worker; other supervisors follow their own rules.

    WORKER is a name from `mesh workers`. Exits with 1 if a worker did not answer, or with --wait did not exit in
    time.

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
    # MESH_MODEL is set for other commands, so it must not drain a whole model.
    if context.get_parameter_source("model") is not ParameterSource.COMMANDLINE:
        model = None
    if not worker and model is None:
        raise click.UsageError("name the workers, or give --model NAME", context)
    if not loop.run(drain_action.run(nats, worker, model, is_waiting, as_json)):
        context.exit(1)
