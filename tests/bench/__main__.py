"""Benchmarks. Figures are ratios of what ran in turn on one machine in one run; no absolute time is asserted.

python -m tests.bench simulated [--rounds 5] [--json FILE]
python -m tests.bench frontdoor [--rounds 5] [--json FILE]
python -m tests.bench audit [--rounds 5] [--json FILE]
python -m tests.bench durability [--replicas 3] [--rounds 5] [--json FILE]
python -m tests.bench rivals [--rounds 3] [--only NAME,…] [--json FILE]
python -m tests.bench scale [--rounds 1] [--only PART,…] [--json FILE]
python -m tests.bench vllm [--http] [--coalesce-ms 20] [--model FOLDER] [--rounds 3] [--levels 1,8,32,64] [--json FILE]

Those of each release are kept in tests/bench/results/VERSION.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.bench.machine import made_on
from tests.bench.report import Report
from tests.bench.rivals import measure as rivals
from tests.bench.rivals.measure import NAMES, blocks
from tests.bench.scale import PARTS
from tests.bench.simulated import Sizes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    simulated = commands.add_parser("simulated", help="the mesh against a minimum of stock nats-py")
    simulated.add_argument("--rounds", type=int, default=5)
    frontdoor = commands.add_parser("frontdoor", help="plain NATS requests against the mesh's own client")
    frontdoor.add_argument("--rounds", type=int, default=5)
    audit = commands.add_parser("audit", help="a mesh that keeps what happened to its jobs against one that does not")
    audit.add_argument("--rounds", type=int, default=5)
    durability = commands.add_parser("durability", help="every write synced to the disk, against the default")
    durability.add_argument("--rounds", type=int, default=5)
    durability.add_argument("--replicas", type=int, choices=(1, 3), default=1, help="servers, all on this machine")
    beside = commands.add_parser("rivals", help="the mesh against what people would use instead")
    beside.add_argument("--rounds", type=int, default=3)
    beside.add_argument("--only", type=_names, default=[], help="some of " + ", ".join(NAMES))
    scale = commands.add_parser("scale", help="many queued jobs, streams, tenants and workers against few")
    scale.add_argument("--rounds", type=int, default=1)
    scale.add_argument("--only", type=_parts, default=PARTS, help="some of " + ", ".join(PARTS))
    vllm = commands.add_parser("vllm", help="the mesh on vLLM against AsyncLLM in one process")
    vllm.add_argument("--model", type=_model, default="examples/demo_model/model", help="a folder, or a hub id")
    vllm.add_argument("--rounds", type=int, default=3)
    vllm.add_argument("--levels", type=_levels, default=[1, 8, 32, 64], help="requests at once, e.g. 1,8,32,64")
    vllm.add_argument("--coalesce-ms", type=float, default=0.0, help="as that of `mesh worker`")
    vllm.add_argument("--http", action="store_true", help="`vllm serve` and its HTTP stream as well")
    for command in (simulated, frontdoor, audit, durability, beside, scale, vllm):
        command.add_argument("--json", type=Path, help="write the values of every round there")
    arguments = parser.parse_args()
    load = os.getloadavg()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(_measure(arguments))
    print(report.standing(blocks(Sizes().at_once)) if arguments.command == "rivals" else report.table())
    if arguments.json is not None:
        kept = {"made_on": made_on(), "load_before": load, **report.as_json()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")


async def _measure(arguments: argparse.Namespace) -> Report:
    if arguments.command == "simulated":
        from tests.bench import simulated

        return await simulated.measure(arguments.rounds)
    if arguments.command == "frontdoor":
        from tests.bench import door

        return await door.measure(arguments.rounds)
    if arguments.command == "audit":
        from tests.bench import audited

        return await audited.measure(arguments.rounds)
    if arguments.command == "durability":
        from tests.bench import durability

        return await durability.measure(arguments.rounds, arguments.replicas)
    if arguments.command == "rivals":
        return await rivals.measure(arguments.rounds, arguments.only)
    if arguments.command == "scale":
        from tests.bench import scale

        return await scale.measure(arguments.rounds, only=arguments.only)
    from tests.bench import inprocess

    options = {"with_http": arguments.http, "coalesce_ms": arguments.coalesce_ms}
    return await inprocess.measure(arguments.model, arguments.rounds, arguments.levels, **options)


def _model(text: str) -> str:
    """The children run where we do, but vLLM tells a folder from a hub id best by a whole path."""
    return str(Path(text).resolve()) if Path(text).is_dir() else text


def _names(text: str) -> list[str]:
    return _some_of(NAMES, text)


def _parts(text: str) -> list[str]:
    return _some_of(PARTS, text)


def _some_of(known: Sequence[str], text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
    return names


def _levels(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
