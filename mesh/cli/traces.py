"""Traces of a command that asks and leaves, if the environment names a collector. Used by cli/connecting."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator

from mesh._version import extra

log = logging.getLogger("mesh.cli")

# As OpenTelemetry has it: any of them says where a collector is.
OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_wanted() -> bool:
    """Whether the environment asks for traces."""
    return any(map(os.environ.get, OTLP_VARIABLES))


@contextlib.asynccontextmanager
async def traced() -> AsyncIterator[None]:
    """Trace what is asked for as long as the context lasts, where that is wanted and can be done."""
    if not is_wanted():
        yield
        return
    try:
        from mesh.telemetry.tracing import exported
    except ModuleNotFoundError as error:  # the environment is for all programs, and this one can do without
        log.warning("no traces: %s is not installed; run %s", error.name, extra("tracing"))
        yield
        return
    async with exported(None, "mesh-client", f"cli-{os.getpid()}"):
        yield
