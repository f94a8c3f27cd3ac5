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
    help="What shall survive a power cut; see above. Sets --events-storage, unless that is given too.",
)
@option("--apply", is_flag=True, help="Create what is missing.")
@with_json
def command(
    nats: Nats, model: tuple[str, ...], shape: TopologyOptions, profile: str | None, apply: bool, as_json: bool
) -> None:
    """Show what the mesh needs on NATS, and with --apply declare it.

    The plan is a table of streams, buckets and consumers: `create` is missing, `keep` is as it should be,
    `differs` exists with other settings. Without --apply nothing is changed. With it, what is missing is
    created; what differs is never changed, and makes it exit with 3. Run it as often as you like.

    --audit and --record-requests, and their opposites, may be given to a mesh that exists: what they turn on or off
    is `change` in the plan, and --apply changes it; nobody is interrupted. Workers heed --no-audit when they start
    next. RECORDED REQUESTS HOLD THE PROMPTS of all tenants: whoever may read the stream reads them. They go after
    --record-days; --no-record-requests records no more, `nats stream rm MESH_RECORD` removes what there is.

    What NATS has acknowledged survives the death of any process. A power cut can take its last two minutes with it,
    unless several servers have them (--replicas 3, on machines that do not lose power together): that is --profile
    standard. With --profile strict it takes nothing that was accepted or that ended: every nats-server then writes
    with `sync_interval: always`, and events, which can be made again, are kept in memory.

    A setting you do not give stays as the mesh has it. Workers declare the queue of their own model when they
    start; --model is for accounts in which they may not.

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
