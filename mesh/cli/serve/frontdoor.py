"""`mesh frontdoor`."""

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import with_nats
from mesh.cli.serve.monitoring_options import MonitoringOptions, with_watching


@click.command("frontdoor")
@with_nats
@with_watching
def command(nats: Nats, watching: MonitoringOptions) -> None:
    """Answer plain NATS requests for a mesh, without a worker.

    Every worker does so too, unless it was started with --no-frontdoor. A front door of its own takes this load off
    the workers, and accepts requests while no worker runs. Start any number; they share the requests.

    \b
    Requests with the stock nats CLI:
        nats req mesh.rpc.default.demo '{"prompt": "Hello", "max_tokens": 16}' --timeout 60s
        nats req mesh.rpc.default.demo '{"prompt": "Hello", "stream": true}' \\
            --wait-for-empty --reply-timeout 60s --timeout 120s --raw
        nats req mesh.ctl.default.status.job-1 ''
        nats micro ls; nats micro stats mesh

    A request becomes a normal job: it is queued, survives the death of any process, and its Result is kept. If the
    front door dies, repeat the request with the same "id" to get the job's answer. A requester that disconnects
    cancels its job, unless the body says "on_disconnect": "finish". A request that cannot be served is refused at
    once, with a code and a reason. SIGTERM or Ctrl-C ends the command.

    \b
    Example:
        mesh frontdoor --nats tls://nats.example:4222
    """
    from mesh.cli.serve import frontdoor_action
    from mesh.cli.terminal import loop

    loop.run(frontdoor_action.frontdoor(nats, watching), log_level=watching.log_level, log_format=watching.log_format)
