"""`mesh doctor`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats


@click.command("doctor")
@option(
    "--monitor",
    metavar="URL",
    help="nats-server's monitoring port, such as http://10.0.0.5:8222: shows how it syncs, and its disk.",
)
@option("--quick", is_flag=True, help="Do not import vLLM, which takes some seconds.")
@with_json
@with_nats
def command(monitor: str | None, quick: bool, as_json: bool, nats: Nats) -> None:
    """Look for whatever is wrong with NATS, with the mesh on it, and with this machine.

    Each finding comes with what to do about it, the worst first. It changes nothing.

    \b
        NATS   there, and safe? JetStream, limits, message size, clocks, TLS
        mesh   as it was declared? streams, consumers, copies, leaders
        work   queues with no worker, silent workers, versions, dead letters
        here   vLLM, torch and GPU, ports, open files

    Some things a client cannot see: how NATS syncs to disk needs --monitor. `mesh status` shows what the mesh does;
    this shows how it is set up.

    Exit codes: 0 if there is no error (there may be warnings), 1 if there is one, also if NATS cannot be reached.

    \b
    Examples:
        mesh doctor
        mesh doctor --nats tls://nats.example:4222 --monitor http://10.0.0.5:8222
        mesh doctor --quick --json | jq '.advice[] | select(.level == "error")'
    """
    from mesh.cli.health import doctor_action
    from mesh.cli.terminal import loop

    if not loop.run(doctor_action.run(nats, monitor, quick, as_json)):
        click.get_current_context().exit(1)
