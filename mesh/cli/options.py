"""The options that commands share, each group handed to the command as one value.

Imports nothing but click and names: `--help` is built from it.
"""

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from mesh.cli.option_values import (
    DEFAULT_NATS,
    TIERS,
    EngineChoice,
    Filters,
    Nats,
    Policies,
    Question,
    Sampling,
    TopologyOptions,
)
from mesh.cli.setup import completing

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_FILE = click.Path(dir_okay=False, path_type=Path)


def option(*names: str, **attributes: Any) -> Decorator:
    """click's option, with its default and its environment variable in the help."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = f"MESH_{long.lstrip('-').replace('-', '_').upper()}"
    attributes.setdefault("show_default", True)
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


def group(kind: type[Any], parameter: str, *options: Decorator) -> Decorator:
    """Several options as one argument: `kind`, a dataclass with a field for each of them."""
    names = [field.name for field in fields(kind)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def gathered(*args: Any, **given: Any) -> Any:
            value = kind(**{name: given.pop(name) for name in names})
            return command(*args, **given, **{parameter: value})

        decorated: Callable[..., Any] = gathered
        for each in reversed(options):
            decorated = each(decorated)
        return decorated

    return decorate


with_nats = group(
    Nats,
    "nats",
    option(
        "--nats",
        multiple=True,
        default=(DEFAULT_NATS,),
        metavar="URL",
        help="A NATS server; several of one cluster with commas, or the option again.",
    ),
    option("--creds", type=_FILE, help="NATS credentials file (JWT and key)."),
    option("--nkey", type=_FILE, help="File with an NKey seed."),
    option("--user", help="NATS user."),
    option("--password", help="NATS password; the variable keeps it out of the process list."),
    option(
        "--tls-ca",
        type=_FILE,
        show_default="what this machine trusts",
        help="Certificates (PEM) that vouch for NATS; with it, nothing is sent without TLS.",
    ),
    option("--tls-cert", type=_FILE, help="Our own certificate (PEM), for a NATS that asks for one."),
    option("--tls-key", type=_FILE, help="Its key (PEM), where it is not in the same file."),
    option(
        "--allow-plaintext",
        is_flag=True,
        help="Talk to another machine without TLS, on a network that is trusted itself.",
    ),
    option("--namespace", default="mesh", help="The mesh's name on this NATS: the first token of its subjects."),
)

with_tenant = option(
    "--tenant",
    default="default",
    shell_complete=completing.tenants,
    help="Whose jobs these are, in a mesh of several tenants.",
)


with_engine = group(
    EngineChoice,
    "choice",
    option(
        "--engine",
        default="vllm",
        metavar="NAME",
        help="vllm; simulator (no model, no GPU: for trying and testing); or package.module:factory.",
    ),
    option(
        "--model",
        metavar="PATH|ID",
        help="What to load: a folder, or a Hugging Face id. The simulator needs none.",
    ),
    option(
        "--name",
        metavar="NAME",
        show_default="made from --model; demo for the demo model",
        help="The name clients ask for.",
    ),
    option(
        "--engine-arg",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the engine itself, such as gpu_memory_utilization=0.8; may be repeated.",
    ),
    option(
        "--max-model-len",
        type=click.IntRange(min=2),
        metavar="N",
        show_default="the model's own",
        help="Context, in tokens of prompt and output together.",
    ),
    option(
        "--capacity",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="what the engine can start",
        help="Jobs at once.",
    ),
)


with_policies = group(
    Policies,
    "policies",
    option(
        "--tier-weights",
        default="interactive=16,standard=4,batch=1",
        metavar="TIER=N,…",
        help="Jobs taken from each tier, in proportion, when all of them wait.",
    ),
    option(
        "--max-attempts",
        type=click.IntRange(min=1),
        default=3,
        metavar="N",
        help="Attempts in a row that speak against a job before it is buried as a dead letter.",
    ),
    option(
        "--stall-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=120.0,
        metavar="S",
        help="Seconds without a token for any running job after which the engine is taken for hung.",
    ),
    option(
        "--coalesce-ms",
        type=click.FloatRange(min=0, max=1000),
        default=0.0,
        metavar="MS",
        help="Let a stream's tokens gather for so long after each message: less work for each token, and later "
        "by that much. The first token and the end never wait.",
    ),
)


_STORAGE = click.Choice(["file", "memory"])
_SHAPE = {
    "lanes": option(
        "--lanes",
        type=int,
        metavar="N",
        show_default="4",
        help="Parts of each model's queue that keep like prompts on one worker's cache.",
    ),
    "replicas": option(
        "--replicas", type=int, metavar="N", show_default="1", help="Copies of every stream, for a cluster."
    ),
    "storage": option("--storage", type=_STORAGE, show_default="file", help="Where requests and results are kept."),
    "events_storage": option(
        "--events-storage",
        type=_STORAGE,
        show_default="file",
        help="Where the tokens on their way are kept; memory spares a server that syncs every write.",
    ),
    "ack_wait": option(
        "--ack-wait",
        type=float,
        metavar="S",
        show_default="10",
        help="Seconds until a dead worker's jobs move; workers renew it.",
    ),
    "max_deliver": option(
        "--max-deliver", type=int, metavar="N", show_default="10000", help="Backstop on deliveries of one job."
    ),
    "queue_limit": option(
        "--queue-limit",
        type=int,
        metavar="N",
        show_default="10000",
        help="Jobs waiting per model, tier, tenant and lane; more are refused at once.",
    ),
    "audit": option(
        "--audit/--no-audit",
        default=None,
        show_default="on",
        help="Keep for 7 days what happened to every job, without prompts or outputs; `mesh audit` shows it.",
    ),
    "record_requests": option(
        "--record-requests/--no-record-requests",
        default=None,
        show_default="off",
        help="Keep a copy of every request, PROMPTS INCLUDED, for `mesh replay`.",
    ),
    "record_days": option(
        "--record-days", type=int, metavar="N", show_default="1", help="Days for which recorded requests are kept."
    ),
    "record_bytes": option(
        "--record-bytes",
        type=int,
        metavar="N",
        show_default="1 GiB",
        help="Bytes of recorded requests that are kept; beyond, the oldest go.",
    ),
}
with_shape = group(TopologyOptions, "shape", *_SHAPE.values())


with_sampling = group(
    Sampling,
    "sampling",
    option("--max-tokens", type=int, metavar="N", show_default="256", help="Most tokens of output."),
    option("--temperature", type=float, metavar="T", show_default="1.0", help="0 always takes the likeliest token."),
    option(
        "--top-p", type=float, metavar="P", show_default="1.0", help="Draw from the likeliest tokens that sum to P."
    ),
    option("--seed", type=int, metavar="N", show_default="made from the job's id", help="Makes the draw repeatable."),
    option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated."),
    option(
        "--deadline",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        show_default="600",
        help="Seconds from now after which the job expires.",
    ),
)


with_question = group(
    Question,
    "question",
    option(
        "--model",
        metavar="NAME",
        shell_complete=completing.models,
        help="Which model; not needed where only one is served.",
    ),
    option("--system", metavar="TEXT", help="A system message, before the prompt."),
    option("--tier", type=click.Choice(TIERS), default="standard", help="How urgent it is."),
    with_tenant,
)

with_raw_prompt = option(
    "--raw-prompt", is_flag=True, help="Send bare text to go on from, without the model's chat template."
)


def span(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """click's callback for a span of time: 90s, 15m, 1h, 2d, or bare seconds. Becomes seconds."""
    if value is None:
        return None
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(value[-1:])
    try:
        seconds = float(value if unit is None else value[:-1]) * (unit or 1)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:  # also what is no number at all
        raise click.BadParameter(f"{value!r} is not a span of time such as 90s, 15m, 1h or 2d", context, parameter)
    return seconds


with_filters = group(
    Filters,
    "filters",
    option("--model", metavar="NAME", shell_complete=completing.models, help="Only jobs for this model."),
    option("--tier", type=click.Choice(TIERS), help="Only jobs of this tier."),
    option(
        "--tenant",
        metavar="NAME",
        shell_complete=completing.tenants,
        show_default="all tenants",
        help="Only jobs of this tenant.",
    ),
    option("--code", metavar="CODE", help="Only jobs given up with this error code, such as attempts_exhausted."),
    option("--since", callback=span, metavar="SPAN", help="Only what was given up in the last 90s, 15m, 1h, 2d."),
)
with_all = option("--all", "is_all", is_flag=True, help="Every dead letter, or every one that the filters leave.")
with_json = option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
with_grace = option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    metavar="S",
    help="Seconds that running jobs get to finish when the worker is told to stop.",
)
