"""`mesh replay`."""

from pathlib import Path

import click

from mesh.cli.load.replay_values import ReplayOptions, ReplayTarget
from mesh.cli.option_values import Nats
from mesh.cli.options import group, option, span, with_json, with_nats

_FILE = click.Path(dir_okay=False, path_type=Path)


def _speed(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """click callback: a factor of the recorded pace; 0 means `max`."""
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
    option(
        "--since",
        callback=span,
        metavar="SPAN",
        show_default="all",
        help="Only requests of the last 90s, 15m, 1h or 2d.",
    ),
    option(
        "--until", callback=span, metavar="SPAN", show_default="now", help="Only requests older than this, such as 15m."
    ),
    option("--tenant", metavar="NAME", show_default="all tenants", help="Only requests of this tenant."),
    option("--model", metavar="NAME", show_default="all models", help="Only requests for this model."),
    option("--limit", type=click.IntRange(min=1), metavar="N", show_default="all", help="Only the first N of these."),
    option(
        "--speed",
        callback=_speed,
        default="1",
        metavar="X",
        help="Factor of the recorded pace, such as 2 or 0.5; max submits as fast as the mesh accepts.",
    ),
    option(
        "--at-once",
        type=click.IntRange(min=1, max=100_000),
        default=256,
        metavar="N",
        help="Most open jobs; at this bound the pace slows, and the report shows the delay.",
    ),
)


with_whither = group(
    ReplayTarget,
    "whither",
    option("--to-nats", metavar="URL", show_default="--nats", help="Submit to the mesh on this NATS."),
    option("--to-creds", type=_FILE, help="Credentials file for --to-nats; those of --nats are never used there."),
    option(
        "--to-namespace", metavar="NAME", show_default="--namespace", help="Submit to the mesh with this namespace."
    ),
    option("--to-tenant", metavar="NAME", show_default="the recorded one", help="Submit for this tenant."),
    option(
        "--to-model",
        multiple=True,
        metavar="[OLD=]NEW",
        show_default="the recorded one",
        help="Submit to model NEW, or only requests for OLD; may be repeated.",
    ),
)


@click.command("replay")
@with_asked
@with_whither
@option("--apply", is_flag=True, help="Submit them.")
@with_json
@with_nats
def command(asked: ReplayOptions, whither: ReplayTarget, apply: bool, as_json: bool, nats: Nats) -> None:
    """Submit recorded requests again, to this mesh or another, at the recorded pace or another.

    Without --apply, it only shows its plan. With --apply, it submits the requests, shows progress and waits for the
    jobs. Its report compares endings and times with the originals, as far as `mesh audit` has them. Ctrl-C stops
    submitting and reports; submitted jobs continue. Exits with 1 if a request was refused or a job lost.

    REQUESTS ARE RECORDED ONLY AFTER `mesh init --record-requests --apply`, AND WITH THEIR PROMPTS. --to-nats sends
    those prompts to the other NATS.

    Each replayed job has its own id, replay-RUN-ID, so it never collides with the original. It is not replayed
    again. It keeps the original's seed and time to its deadline.

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
        raise click.UsageError("--since must be the earlier time: --since 2h --until 1h", click.get_current_context())
    if not loop.run(replay_action.run(asked, whither, nats, apply, as_json)):
        click.get_current_context().exit(1)
