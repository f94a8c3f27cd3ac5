"""`mesh bench`."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from mesh._version import extra
from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_nats

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("bench")
@option("--model", metavar="NAME", help="Model name; may be left out while only one model is served.")
@option(
    "--num-prompts", type=click.IntRange(min=1, max=10_000_000), default=1000, metavar="N", help="Number of requests."
)
@option(
    "--request-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    show_default="all at once",
    help="Requests a second (open loop).",
)
@option("--max-concurrency", type=click.IntRange(min=1), metavar="N", help="Requests open at once (closed loop).")
@option(
    "--burstiness",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    metavar="B",
    help="Spread of the gaps between requests: 1 is a Poisson process, less is burstier, more is more even.",
)
@option("--input-len", default="128", metavar="LEN", help="Words of each prompt: 128, 64-256 or normal:MEAN,STDDEV.")
@option("--output-len", default="128", metavar="LEN", help="Output tokens, in the same forms.")
@option("--dataset", type=_FILE, metavar="FILE", help="ShareGPT JSON, or a trace of one JSON object a line.")
@option(
    "--tier",
    default="standard",
    metavar="TIER[=SHARE],…",
    help="Tier of the requests; several share them in proportion.",
)
@option(
    "--tenant",
    default="default",
    metavar="NAME[=SHARE],…",
    help="Tenant of the requests; several share them in proportion.",
)
@option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=0.0,
    metavar="T",
    help="Sampling temperature; 0 takes the likeliest token.",
)
@option("--respect-eos", is_flag=True, help="Let the model stop before the output length.")
@option("--num-warmups", type=click.IntRange(min=0), default=8, metavar="N", help="Requests before the measurement.")
@option("--seed", type=int, default=0, metavar="N", help="Seed of prompts, lengths and times.")
@option(
    "--goodput",
    multiple=True,
    metavar="METRIC:MS",
    help="Goal for ttft, tpot or e2el; a request that meets all goals counts.",
)
@option("--percentiles", default="50,90,99", metavar="P,…", help="Percentiles to show.")
@option("--json", "json_file", type=_FILE, metavar="FILE", help="Write all figures to this file, under vLLM's names.")
@option("--samples", is_flag=True, help="With --json, also write each request's values.")
@option("--plot", type=_FILE, metavar="FILE", help=f"Plot the figures, as .svg or .png ({extra('plot')}).")
@with_nats
def command(nats: Nats, **given: Any) -> int:
    """Put load on a running mesh, and measure it at the client.

    The figures are those of vLLM's `bench serve`, plus the time in the queue, in the engine, and in NATS.

    \b
        TTFT   time to the first token
        ITL    time between two messages of a stream
        TPOT   mean time per token after the first
        E2EL   time to the end of the request

    --request-rate sends requests at fixed times, however many are open. --max-concurrency starts a request when
    another ends. With both, the rate holds while the concurrency allows it. --goodput counts the requests that met
    every goal. A trace's times and lengths are used where it has them; a short trace is repeated.

    \b
    Examples:
        mesh bench --num-prompts 200 --max-concurrency 32
        mesh bench --request-rate 20 --input-len 64-512 --output-len normal:128,64 --goodput ttft:500
        mesh bench --tier interactive=1,batch=4 --tenant a=1,b=3 --request-rate 50
        mesh bench --dataset ShareGPT.json --num-prompts 500 --request-rate 10 --json run.json --plot run.svg

    Exit codes: 0 if every request finished, 1 if any did not. Ctrl-C cancels open requests.
    """
    from mesh.cli.load import bench_action
    from mesh.cli.terminal import loop

    wanted = bench_action.Wanted(**{each.name: given[each.name] for each in fields(bench_action.Wanted)})
    output = bench_action.Output(**{each.name: given[each.name] for each in fields(bench_action.Output)})
    return 0 if loop.run(bench_action.run(wanted, output, nats)) else 1
