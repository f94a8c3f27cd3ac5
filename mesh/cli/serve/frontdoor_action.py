"""`mesh frontdoor`: answers to plain NATS requests."""

import functools

from mesh.cli.option_values import Nats
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.serve.service_process import serve
from mesh.hosting.services import doors


async def frontdoor(nats: Nats, watching: MonitoringOptions) -> None:
    """Answer plain NATS requests until a signal; raises as `serve`."""
    host = functools.partial(doors, has_frontdoor=True)
    await serve(nats, watching, "frontdoor", host, "{ns}.rpc.<tenant>.<model> is answered")
