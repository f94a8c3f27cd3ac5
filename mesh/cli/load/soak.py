"""`mesh soak`."""

from pathlib import Path

import click

from mesh.cli.options import option


@click.command("soak")
@option("--requests", type=click.IntRange(1, 10_000_000), default=10_000, metavar="N", help="How many to submit.")
@option("--seed", type=int, default=1, metavar="N", help="Decides what is asked, and which faults strike when.")
@option("--workers", type=click.IntRange(2, 64), default=5, metavar="N", help="Worker processes, with simulators.")
@option(
    "--replicas",
    type=click.Choice(["1", "3"]),
    default="1",
    help="3: a cluster of three nats-servers, with three copies of everything.",
)
@option(
    "--ack-wait",
    type=click.FloatRange(1, 3600),
    metavar="S",
    show_default="2, with --replicas 3 10",
    help="The lease of a job; suspended workers are away for 1.2 to 2.2 times as long.",
)
@option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    show_default="a temporary one, removed in the end",
    help="An empty folder for the servers' stores and the workers' log, which stay there.",
)
@option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the figures, and the history of every offending job, to this file.",
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
    """Prove it on this machine: thousands of requests under faults, and a judge of everything that was seen.

    Starts a mesh of its own on loopback and asks it many things at once: streams that are followed from the first
    token, jobs that are fetched later by their id, cancels, short deadlines, the same id submitted twice, and
    requests that kill every worker which runs them. Meanwhile, two or three times a second, a worker is killed,
    suspended until its jobs are others', cut off, slowed down, or torn from its connection; every ten seconds or so
    a nats-server is killed. What dies is started again. A watcher writes down every message on the wire.

    When the queue is empty, every job's history is judged: one Result for each accepted request, written once and
    never changed; each token once, in order, for every reader; the text that an undisturbed simulator writes; no
    write without its fence; no ack before its Result; nothing buried but what kills workers; nothing left over.

    The same seed asks the same and strikes alike; what the faults meet depends on the machine. 10,000 requests take
    about two minutes on two cores.

    \b
    Examples:
        mesh soak
        mesh soak --requests 1000 --seed 7
        mesh soak --requests 2000 --replicas 3 --json soak.json

    Exit codes: 0 if every promise was kept, 1 if not, with the histories of the offending jobs; 3 or 5 if the mesh
    could not be started.
    """
    from mesh.cli.load import soak_action
    from mesh.cli.terminal import loop

    order = soak_action.SoakOptions(requests, seed, workers, int(replicas), ack_wait, data, json_file)
    is_kept = loop.run(soak_action.run(order), is_patient=True)
    return 0 if is_kept else 1
