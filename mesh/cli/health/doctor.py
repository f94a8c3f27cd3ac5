"""`mesh doctor`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats


@click.command("doctor")
@option(
    "--monitor",
    metavar="URL",
    help="nats-server's monitoring port, such as http://10.0.0.5:8222; adds checks of its sync settings and disk.",
)
@option("--quick", is_flag=True, help="Skip the import of vLLM, which takes some seconds.")
@with_json
@with_nats
def command(monitor: str | None, quick: bool, as_json: bool, nats: Nats) -> None:
    """Diagnose NATS, the mesh on it, and this machine.

    Each finding names its remedy; the worst comes first. The command changes nothing.

    \b
        NATS   connection, JetStream, limits, message size, clocks, TLS
        mesh   streams, consumers, copies and leaders, against their declaration
        work   queues with no worker, silent workers, versions, dead letters
        here   vLLM, torch and GPU, ports, open files

    A client cannot see how NATS syncs to disk; --monitor adds that check. `mesh status` shows the mesh's activity;
    this command checks its configuration.

    Exit codes: 0 without errors (warnings are allowed), 1 with an error, also if NATS cannot be reached.

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
