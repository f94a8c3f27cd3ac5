"""Options that several commands share; each group reaches the command as one dataclass.

Imports only click and names, because `--help` is built from this module.
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
    """click.option that also shows the default and the environment variable in the help."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = f"MESH_{long.lstrip('-').replace('-', '_').upper()}"
    attributes.setdefault("show_default", True)
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


def group(kind: type[Any], parameter: str, *options: Decorator) -> Decorator:
    """Passes several options as one argument: a dataclass `kind` with one field per option."""
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
        help="A NATS server; separate several with commas, or repeat the option.",
    ),
    option("--creds", type=_FILE, help="NATS credentials file (JWT and key)."),
    option("--nkey", type=_FILE, help="File with an NKey seed."),
    option("--user", help="NATS user."),
    option("--password", help="NATS password; the variable keeps it out of the process list."),
    option(
        "--tls-ca",
        type=_FILE,
        show_default="the system's trust store",
        help="CA certificates (PEM) to verify NATS; makes TLS mandatory.",
    ),
    option("--tls-cert", type=_FILE, help="Client certificate (PEM), if NATS requires one."),
    option("--tls-key", type=_FILE, help="Key (PEM) of --tls-cert, unless that file holds it."),
    option(
        "--allow-plaintext",
        is_flag=True,
        help="Connect to another machine without TLS; only for trusted networks.",
    ),
    option("--namespace", default="mesh", help="Name of the mesh on this NATS; the first token of its subjects."),
)

with_tenant = option(
    "--tenant",
    default="default",
    shell_complete=completing.tenants,
    help="Tenant that the jobs belong to.",
)


with_engine = group(
    EngineChoice,
    "choice",
    option(
        "--engine",
        default="vllm",
        metavar="NAME",
        help="vllm; simulator (no model and no GPU, for tests); or package.module:factory.",
    ),
    option(
        "--model",
        metavar="PATH|ID",
        help="Model to load: a folder or a Hugging Face id. The simulator needs none.",
    ),
    option(
        "--name",
        metavar="NAME",
        show_default="derived from --model; demo for the demo model",
        help="Model name that clients request.",
    ),
    option(
        "--engine-arg",
        multiple=True,
        metavar="KEY=VALUE",
        help="Engine argument, such as gpu_memory_utilization=0.8; may be repeated.",
    ),
    option(
        "--max-model-len",
        type=click.IntRange(min=2),
        metavar="N",
        show_default="the model's own",
        help="Context length in tokens: prompt and output together.",
    ),
    option(
        "--capacity",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="the engine's own limit",
        help="Jobs that run at the same time.",
    ),
)


with_policies = group(
    Policies,
    "policies",
    option(
        "--tier-weights",
        default="interactive=16,standard=4,batch=1",
        metavar="TIER=N,…",
        help="Share of jobs taken from each tier while all tiers have jobs waiting.",
    ),
    option(
        "--max-attempts",
        type=click.IntRange(min=1),
        default=3,
        metavar="N",
        help="Attempts in a row that count against a job, until it becomes a dead letter.",
    ),
    option(
        "--stall-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=120.0,
        metavar="S",
        help="Seconds without a token from any running job until the engine counts as hung.",
    ),
    option(
        "--coalesce-ms",
        type=click.FloatRange(min=0, max=1000),
        default=0.0,
        metavar="MS",
        help="Milliseconds to collect a stream's tokens after each message: fewer messages, later tokens. "
        "The first token and the end never wait.",
    ),
)


_STORAGE = click.Choice(["file", "memory"])
_SHAPE = {
    "lanes": option(
        "--lanes",
        type=int,
        metavar="N",
        show_default="4",
        help="Parts of each model's queue; similar prompts share a lane, so one worker's cache serves them.",
    ),
    "replicas": option(
        "--replicas", type=int, metavar="N", show_default="1", help="Copies of every stream in a NATS cluster."
    ),
    "storage": option("--storage", type=_STORAGE, show_default="file", help="Where requests and results are kept."),
    "events_storage": option(
        "--events-storage",
        type=_STORAGE,
        show_default="file",
        help="Where token events are kept; memory relieves a server that syncs every write.",
    ),
    "ack_wait": option(
        "--ack-wait",
        type=float,
        metavar="S",
        show_default="10",
        help="Seconds until JetStream redelivers a dead worker's jobs; workers renew this lease.",
    ),
    "max_deliver": option(
        "--max-deliver", type=int, metavar="N", show_default="10000", help="Most deliveries of one job, as a backstop."
    ),
    "queue_limit": option(
        "--queue-limit",
        type=int,
        metavar="N",
        show_default="10000",
        help="Jobs that may wait per model, tier, tenant and lane; more are refused.",
    ),
    "audit": option(
        "--audit/--no-audit",
        default=None,
        show_default="on",
        help="Keep an audit log for 7 days, without prompts or outputs; read it with `mesh audit`.",
    ),
    "record_requests": option(
        "--record-requests/--no-record-requests",
        default=None,
        show_default="off",
        help="Keep a copy of every request, PROMPTS INCLUDED, for `mesh replay`.",
    ),
    "record_days": option(
        "--record-days", type=int, metavar="N", show_default="1", help="Days to keep recorded requests."
    ),
    "record_bytes": option(
        "--record-bytes",
        type=int,
        metavar="N",
        show_default="1 GiB",
        help="Bytes of recorded requests to keep; then the oldest are removed.",
    ),
}
with_shape = group(TopologyOptions, "shape", *_SHAPE.values())


with_sampling = group(
    Sampling,
    "sampling",
    option("--max-tokens", type=int, metavar="N", show_default="256", help="Most output tokens."),
    option(
        "--temperature",
        type=float,
        metavar="T",
        show_default="1.0",
        help="Sampling temperature; 0 always takes the likeliest token.",
    ),
    option(
        "--top-p",
        type=float,
        metavar="P",
        show_default="1.0",
        help="Sample from the likeliest tokens whose probabilities sum to P.",
    ),
    option("--seed", type=int, metavar="N", show_default="derived from the job's id", help="Seed of sampling."),
    option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; may be repeated."),
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
        help="Model name; may be left out while only one model is served.",
    ),
    option("--system", metavar="TEXT", help="System message before the prompt."),
    option("--tier", type=click.Choice(TIERS), default="standard", help="Priority of the job."),
    with_tenant,
)

with_raw_prompt = option(
    "--raw-prompt", is_flag=True, help="Send plain text to continue, without the model's chat template."
)


def span(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """click callback: converts 90s, 15m, 1h, 2d or plain seconds to seconds."""
    if value is None:
        return None
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(value[-1:])
    try:
        seconds = float(value if unit is None else value[:-1]) * (unit or 1)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:  # -1.0 stands for text that is no number
        raise click.BadParameter(f"{value!r} is not a duration such as 90s, 15m, 1h or 2d", context, parameter)
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
    option("--code", metavar="CODE", help="Only dead letters with this error code, such as attempts_exhausted."),
    option("--since", callback=span, metavar="SPAN", help="Only dead letters from the last 90s, 15m, 1h or 2d."),
)
with_all = option("--all", "is_all", is_flag=True, help="All dead letters that the filters match.")
with_json = option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
with_grace = option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    metavar="S",
    help="Seconds that running jobs may take to finish when the worker drains.",
)
