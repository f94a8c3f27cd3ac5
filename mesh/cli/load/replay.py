"""`mesh replay`."""

from pathlib import Path

import click

from mesh.cli.load.replay_values import ReplayOptions, ReplayTarget
from mesh.cli.option_values import Nats
from mesh.cli.options import group, option, span, with_json, with_nats

_FILE = click.Path(dir_okay=False, path_type=Path)


def _speed(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """click's callback: times the recorded pace; 0 for `max`."""
    try:
        speed = 0.0 if value == "max" else float(value)
    except ValueError:
        speed = -1.0
    if not (value == "max" or 0 < speed <= 1e6):
        raise click.BadParameter(f"{value!r} is neither a number such as 1 or 0.5, nor max", context, parameter)
    return speed


with_asked = group(
    ReplayOptions,
    "asked",
    option("--since", callback=span, metavar="SPAN", show_default="all", help="From so long ago: 90s, 15m, 1h, 2d."),
    option("--until", callback=span, metavar="SPAN", show_default="now", help="Until so long ago."),
    option("--tenant", metavar="NAME", show_default="all tenants", help="Only requests of this tenant."),
    option("--model", metavar="NAME", show_default="all models", help="Only requests for this model."),
    option("--limit", type=click.IntRange(min=1), metavar="N", show_default="all", help="The first N of them."),
    option(
        "--speed",
        callback=_speed,
        default="1",
        metavar="X",
        help="Times the recorded pace: 1, 2, 0.5; max submits as fast as they are taken.",
    ),
    option(
        "--at-once",
        type=click.IntRange(min=1, max=100_000),
        default=256,
        metavar="N",
        help="Jobs open at the same time; beyond, the pace is not kept, and the report says by how much.",
    ),
)


with_whither = group(
    ReplayTarget,
    "whither",
    option("--to-nats", metavar="URL", show_default="--nats", help="Submit to the mesh on this NATS."),
    option("--to-creds", type=_FILE, help="Credentials file for --to-nats; those of --nats are not sent there."),
    option("--to-namespace", metavar="NAME", show_default="--namespace", help="Submit to the mesh of this name."),
    option("--to-tenant", metavar="NAME", show_default="their own", help="Submit as this tenant's."),
    option(
        "--to-model",
        multiple=True,
        metavar="[OLD=]NEW",
        show_default="their own",
        help="Submit to this model, or those for OLD to NEW; may be repeated.",
    ),
)


@click.command("replay")
@with_asked
@with_whither
@option("--apply", is_flag=True, help="Submit them.")
@with_json
@with_nats
def command(asked: ReplayOptions, whither: ReplayTarget, apply: bool, as_json: bool, nats: Nats) -> None:
    """Submit recorded requests again: at their own pace or another, to this mesh or another.

    Shows what it would submit, and submits nothing without --apply. Then it shows how it goes, waits for the jobs,
    and reports how they ended and how long they took beside the originals, as far as `mesh audit` knows those.
    Ctrl-C submits no more, and reports; jobs that were submitted go on. Exits with 1 if a request was refused or a
    job lost.

    REQUESTS ARE RECORDED ONLY WHERE THE OPERATOR CHOSE SO (`mesh init --record-requests --apply`), AND WITH THEIR
    PROMPTS: --to-nats takes them to where they are submitted. Each replayed job has an id of its own,
    replay-RUN-ID, so it never meets the original, and is not replayed again; its seed is the original's, and its
    deadline as far off as the original's was.

    \b
    Examples:
        mesh replay --since 2h --until 1h
        mesh replay --since 2h --until 1h --speed 2 --apply
        mesh replay --since 1d --limit 500 --speed max --to-model chat=chat-next --apply
        mesh replay --since 1h --to-nats nats://127.0.0.1:4333 --to-tenant trial --apply --json
    """
    from mesh.cli.load import replay_action
    from mesh.cli.terminal import loop

    if asked.since is not None and asked.until is not None and asked.since <= asked.until:
        raise click.UsageError("--since is the earlier of the two: --since 2h --until 1h", click.get_current_context())
    if not loop.run(replay_action.run(asked, whither, nats, apply, as_json)):
        click.get_current_context().exit(1)
