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
@option("--model", metavar="NAME", help="Which model; not needed where only one is served.")
@option("--num-prompts", type=click.IntRange(min=1, max=10_000_000), default=1000, metavar="N", help="Requests.")
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
    help="Of the gaps between requests: 1 a Poisson process, less in bursts, more evenly.",
)
@option("--input-len", default="128", metavar="LEN", help="Words of prompt: 128, 64-256 or normal:MEAN,STDDEV.")
@option("--output-len", default="128", metavar="LEN", help="Tokens of output, in the same form.")
@option("--dataset", type=_FILE, metavar="FILE", help="ShareGPT JSON, or a trace of one JSON object a line.")
@option("--tier", default="standard", metavar="TIER[=SHARE],…", help="How urgent they are; several in proportion.")
@option("--tenant", default="default", metavar="NAME[=SHARE],…", help="Whose they are; several in proportion.")
@option("--temperature", type=click.FloatRange(0, 2), default=0.0, metavar="T", help="0 takes the likeliest token.")
@option("--respect-eos", is_flag=True, help="Let the model end before the output length.")
@option("--num-warmups", type=click.IntRange(min=0), default=8, metavar="N", help="Requests before those that count.")
@option("--seed", type=int, default=0, metavar="N", help="Decides prompts, lengths and times.")
@option("--goodput", multiple=True, metavar="METRIC:MS", help="ttft, tpot or e2el that a good request meets.")
@option("--percentiles", default="50,90,99", metavar="P,…", help="Which to show.")
@option("--json", "json_file", type=_FILE, metavar="FILE", help="Write all figures there, in vLLM's names.")
@option("--samples", is_flag=True, help="With --json: each request's own values too.")
@option("--plot", type=_FILE, metavar="FILE", help=f"Draw them, as .svg or .png ({extra('plot')}).")
@with_nats
def command(nats: Nats, **given: Any) -> int:
    """Put load on a running mesh, and measure what its users see.

    Words and figures are those of vLLM's `bench serve`: TTFT is the time to the first token, ITL between two messages
    of a stream, TPOT a request's mean time per token after the first, E2EL until its end, all at the client. What
    vLLM cannot know is beside them: how long requests waited in the queue, what the engine took, and what the way
    through NATS added.

    With --request-rate requests are sent at their time, whoever still waits; with --max-concurrency each that ends
    lets the next begin; with both, the rate is held as long as there is room. --goodput counts the requests that met
    every goal. A trace's own times and lengths are used where it has them; it is gone through again if it is shorter.

    \b
    Examples:
        mesh bench --num-prompts 200 --max-concurrency 32
        mesh bench --request-rate 20 --input-len 64-512 --output-len normal:128,64 --goodput ttft:500
        mesh bench --tier interactive=1,batch=4 --tenant a=1,b=3 --request-rate 50
        mesh bench --dataset ShareGPT.json --num-prompts 500 --request-rate 10 --json run.json --plot run.svg

    Exit codes: 0 if every request finished, 1 if any did not. Ctrl-C cancels what is open.
    """
    from mesh.cli.load import bench_action
    from mesh.cli.terminal import loop

    wanted = bench_action.Wanted(**{each.name: given[each.name] for each in fields(bench_action.Wanted)})
    output = bench_action.Output(**{each.name: given[each.name] for each in fields(bench_action.Output)})
    return 0 if loop.run(bench_action.run(wanted, output, nats)) else 1
