"""`mesh init`."""

import click

from mesh.cli.option_values import Nats, TopologyOptions
from mesh.cli.options import option, with_json, with_nats, with_shape


@click.command("init")
@with_nats
@option("--model", multiple=True, metavar="NAME", help="Declare this model's queue too; may be repeated.")
@with_shape
@option(
    "--profile",
    type=click.Choice(["standard", "strict"]),
    help="Durability after a power cut; see above. Sets --events-storage, unless that is given too.",
)
@option("--apply", is_flag=True, help="Create what is missing.")
@with_json
def command(
    nats: Nats, model: tuple[str, ...], shape: TopologyOptions, profile: str | None, apply: bool, as_json: bool
) -> None:
    """Show what the mesh needs on NATS, and with --apply declare it.

    The plan is a table of streams, buckets and consumers. Without --apply nothing is changed. Run it as often as you
    like.

    \b
        create   is missing; --apply creates it
        keep     is as it should be
        change   --audit, --record-requests or their opposites; --apply changes it
        differs  has other settings; never changed, and --apply exits with 3

    --audit, --record-requests and their opposites also work on an existing mesh, without an interruption. Workers
    apply --no-audit at their next start.

    RECORDED REQUESTS HOLD THE PROMPTS of all tenants, for every reader of the stream. They are removed after
    --record-days. --no-record-requests stops the recording; `nats stream rm MESH_RECORD` removes the records.

    Data that NATS acknowledged survives the death of any process. The profiles differ after a power cut:

    \b
        standard  the last two minutes may be lost, unless several servers hold them
                  (--replicas 3, on machines that do not lose power together)
        strict    no accepted request and no Result is lost: every nats-server needs
                  `sync_interval: always`; events, which can be made again, are in memory

    A setting that is not given stays as it is. Workers declare the queue of their model when they start; --model is
    for accounts that do not permit that.

    \b
    Examples:
        mesh init
        mesh init --apply
        mesh init --apply --nats tls://n1.example,tls://n2.example --replicas 3 --lanes 8 --model chat
        mesh init --apply --profile strict
        mesh init --apply --record-requests --record-days 3
    """
    from mesh.cli.setup import init_action
    from mesh.cli.setup.settings import of_profile
    from mesh.cli.terminal import loop

    loop.run(init_action.run(nats, model, of_profile(shape, profile), apply, as_json))
