"""`mesh up`."""

import contextlib
from pathlib import Path

import click

from mesh.cli.option_values import EngineChoice, TopologyOptions
from mesh.cli.options import option, with_engine, with_grace, with_shape
from mesh.cli.serve.monitoring_options import MonitoringOptions, with_watching
from mesh.cli.terminal.failure import SignalledError


@click.command("up")
@with_engine
@option("--workers", type=click.IntRange(1, 64), default=1, metavar="N", help="Worker processes.")
@option("--port", type=click.IntRange(0, 65535), default=4222, metavar="N", help="Port of NATS; 0 picks a free one.")
@option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mesh-data"),
    metavar="DIR",
    help="Folder of the queue, events and Results; kept at the end.",
)
@option("--namespace", default="mesh", help="Name of the mesh on this NATS.")
@with_shape
@with_grace
@with_watching
def command(
    choice: EngineChoice,
    workers: int,
    port: int,
    data: Path,
    namespace: str,
    shape: TopologyOptions,
    grace: float,
    watching: MonitoringOptions,
) -> None:
    """Run a whole mesh on this machine: NATS, its streams, and N workers with a model.

    For development and for a single server. It starts nats-server on loopback, declares missing streams, and starts
    the workers. It restarts each process that dies, except workers that `mesh drain` ended. --data keeps jobs,
    events and Results for the next start. Existing streams are not changed; differences are reported.

    For several machines run your own NATS, then `mesh init --apply` once and `mesh worker` on each.

    SIGTERM or Ctrl-C drains the workers (see --grace) and ends all processes. A second signal makes the workers hand
    their jobs back at once; the jobs then wait in --data. If this process is killed, its children end too.

    With --telemetry-port N, port N shows the whole mesh, port N + 1 worker 1, N + 2 worker 2, and so on. With 0,
    each process picks a free port and logs it.

    \b
    Examples:
        mesh up --model Qwen/Qwen2.5-0.5B-Instruct
        mesh up --model ./my-model --name chat --workers 2 --data /var/lib/mesh
        mesh up --engine simulator --workers 4 --port 0

    Exit codes: 0 after a signal, 3 if something cannot start as configured, 4 or 5 if NATS or a worker died again and
    again: five times before it was ready, or twenty times within ten seconds of it.
    """
    from mesh.cli.serve import up_action
    from mesh.cli.terminal import loop

    order = up_action.UpOptions(choice, shape, namespace, port, data, workers, grace, watching)
    with contextlib.suppress(SignalledError):  # a signal before the workers started
        loop.run(up_action.serve(order), log_level=watching.log_level, log_format=watching.log_format, is_patient=True)
