"""`mesh soak`."""

from pathlib import Path

import click

from mesh.cli.options import option


@click.command("soak")
@option("--requests", type=click.IntRange(1, 10_000_000), default=10_000, metavar="N", help="Number of requests.")
@option("--seed", type=int, default=1, metavar="N", help="Seed of the requests and the faults.")
@option("--workers", type=click.IntRange(2, 64), default=5, metavar="N", help="Worker processes, with simulators.")
@option(
    "--replicas",
    type=click.Choice(["1", "3"]),
    default="1",
    help="3 runs a cluster of three nats-servers, with three copies of every stream.",
)
@option(
    "--ack-wait",
    type=click.FloatRange(1, 3600),
    metavar="S",
    show_default="2, with --replicas 3 10",
    help="Lease of a job in seconds; workers are suspended for 1.2 to 2.2 times as long.",
)
@option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    show_default="a temporary folder, removed at the end",
    help="Empty folder for the servers' stores and the workers' log; kept at the end.",
)
@option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the figures, and the history of every failed job, to this file.",
)
def command(
    requests: int,
    seed: int,
    workers: int,
    replicas: str,
    ack_wait: float | None,
    data: Path | None,
    json_file: Path | None,
) -> int:
    """Run thousands of requests under faults on this machine, and check every job's history.

    It starts its own mesh on loopback and submits many requests at once. Some are streamed, some are fetched later by
    id, and some are cancelled. Others have short deadlines or duplicate ids, or kill their workers.

    Two or three times a second it kills, suspends, isolates, slows or disconnects a worker. About every ten seconds
    it kills a nats-server. It restarts each process that dies. An observer records every message on the wire.

    When the queue is empty, it checks the history of every job:

    \b
        one Result for each accepted request, written once and never changed
        each token once and in order, for every reader
        the text that an undisturbed simulator writes
        no write without its fence, and no ack before its Result
        no dead letters but requests that kill workers
        an empty queue and no leftovers

    The same seed makes the same requests and faults; their timing depends on the machine. 10,000 requests take about
    two minutes on two cores.

    \b
    Examples:
        mesh soak
        mesh soak --requests 1000 --seed 7
        mesh soak --requests 2000 --replicas 3 --json soak.json

    Exit codes: 0 if every promise was kept; 1 if not, with the failed jobs' histories; 3 or 5 if the mesh could not
    start.
    """
    from mesh.cli.load import soak_action
    from mesh.cli.terminal import loop

    order = soak_action.SoakOptions(requests, seed, workers, int(replicas), ack_wait, data, json_file)
    is_kept = loop.run(soak_action.run(order), is_patient=True)
    return 0 if is_kept else 1
