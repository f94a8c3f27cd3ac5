"""`mesh reconcile`: the services that keep a mesh in order."""

from mesh.cli.option_values import Nats
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.serve.service_process import serve
from mesh.hosting.services import services


async def reconcile(nats: Nats, watching: MonitoringOptions) -> None:
    """Keep a mesh in order until a signal; raises as `serve`."""
    await serve(nats, watching, "reconcile", services, "mesh {ns} is reconciled")
