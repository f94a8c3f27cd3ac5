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

    Every worker does so too, unless it was started with --no-frontdoor. Alone it takes the load off the workers, and
    takes requests on while there is none. Start as many as you like; they share the requests by themselves.

    \b
    What it answers, with the stock nats CLI:
        nats req mesh.rpc.default.demo '{"prompt": "Hello", "max_tokens": 16}' --timeout 60s
        nats req mesh.rpc.default.demo '{"prompt": "Hello", "stream": true}' \\
            --wait-for-empty --reply-timeout 60s --timeout 120s --raw
        nats req mesh.ctl.default.status.job-1 ''
        nats micro ls; nats micro stats mesh

    A request becomes a job like any other: it is queued, survives whatever dies, and its Result is kept. A front
    door that is killed answers nothing more, but asking again with the same "id" gets the job's answer. A requester
    that goes away cancels its job, unless the body says "on_disconnect": "finish". What cannot be served is refused
    at once, with a number and a reason. SIGTERM or Ctrl-C ends it.

    \b
    Example:
        mesh frontdoor --nats tls://nats.example:4222
    """
    from mesh.cli.serve import frontdoor_action
    from mesh.cli.terminal import loop

    loop.run(frontdoor_action.frontdoor(nats, watching), log_level=watching.log_level, log_format=watching.log_format)
