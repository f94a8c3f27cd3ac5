"""`mesh worker`."""

import signal
import sys

import click

from mesh.cli.option_values import EngineChoice, Nats, Policies
from mesh.cli.options import option, with_engine, with_grace, with_nats, with_policies
from mesh.cli.serve.monitoring_options import MonitoringOptions, with_watching


@click.command("worker")
@with_engine
@with_nats
@option("--worker-id", metavar="ID", show_default="w- and eight random digits", help="Name of this worker.")
@with_grace
@with_policies
@option("--frontdoor/--no-frontdoor", default=True, help="Also answer plain NATS requests (see mesh frontdoor).")
@with_watching
@click.option(
    "--leash", is_flag=True, hidden=True, help="End at once when stdin ends, because the parent process is gone."
)
def command(
    choice: EngineChoice,
    nats: Nats,
    worker_id: str | None,
    grace: float,
    policies: Policies,
    frontdoor: bool,
    watching: MonitoringOptions,
    leash: bool,
) -> None:
    """Serve one model to a mesh: load it, pull jobs, stream their tokens back.

    Start one worker per GPU, on any machine that reaches NATS; workers share the jobs. The mesh must exist:
    `mesh init --apply` declares it once. To try everything on one machine, use `mesh up`.

    When it starts to pull, it prints one line:

    \b
        worker w-1f2e3d4c ready: model demo, engine vllm 0.32.0, capacity 64

    SIGTERM or Ctrl-C drains it: it takes no more jobs and gives running jobs --grace seconds to finish. Then it hands
    the rest to other workers, and exits with 0. A second signal hands them over at once. While the model loads, one
    signal ends it.

    If the engine dies or hangs, its jobs move to other workers at once, and the engine restarts. After six deaths in
    a row, each soon after it was ready, the worker exits with 5.

    With --telemetry-port it answers three paths:

    \b
        /livez    200 while the process lives
        /readyz   200 while it can serve; else 503 and the reasons, such as a loading model or no NATS
        /metrics  Prometheus metrics

    \b
    Examples:
        mesh worker --model Qwen/Qwen2.5-0.5B-Instruct --nats tls://nats.example:4222
        mesh worker --model ./my-model --name chat --max-model-len 4096 --engine-arg dtype=float16
        mesh worker --engine simulator --engine-arg between_tokens_ms=20
        mesh worker --model ./my-model --telemetry-port 9600 --log-format json --otlp http://127.0.0.1:4318
    """
    # The imports below take a moment. Until the event loop runs there is nothing to drain.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    from mesh.cli.serve import worker_action
    from mesh.cli.terminal import loop

    if leash:
        worker_action.end_with_stdin()
    order = worker_action.order(choice, nats, policies, watching, worker_action.RunOptions(worker_id, grace, frontdoor))
    name = order.options.name
    loop.run(worker_action.serve(order), log_level=watching.log_level, log_format=watching.log_format, worker=name)
