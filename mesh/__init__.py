"""Language models behind a queue that loses nothing.

async with mesh.connect("nats://127.0.0.1:4222") as client:
    job = await client.submit("demo", "Tell me a story.")
    async for delta in job:
        print(delta.text, end="", flush=True)
    result = await job
"""

import importlib
from typing import TYPE_CHECKING, Any

from mesh._version import __version__ as __version__

if TYPE_CHECKING:
    from mesh import blocking, errors
    from mesh.broker.transport.options import ConnectOptions
    from mesh.client.assembly import Restarted
    from mesh.client.client import Client, connect
    from mesh.client.job import Job
    from mesh.client.request_fields import JobFields, MessageDict, RequestFields
    from mesh.protocol.messages import (
        Delta,
        ErrorInfo,
        JobStatus,
        Message,
        Presence,
        Request,
        ResponseFormat,
        Result,
        Started,
        StructuredOutputs,
        Tier,
        Timing,
        Usage,
    )

__all__ = [
    "connect",
    "ConnectOptions",
    "blocking",
    "errors",
    "Client",
    "Job",
    "JobStatus",
    "Request",
    "RequestFields",
    "JobFields",
    "Tier",
    "Message",
    "MessageDict",
    "ResponseFormat",
    "StructuredOutputs",
    "Result",
    "Usage",
    "Timing",
    "ErrorInfo",
    "Started",
    "Delta",
    "Restarted",
    "Presence",
]

# Where each name lives; imported when it is first used, so that `import mesh` costs nothing.
_HOMES = {
    "connect": "mesh.client.client",
    "Client": "mesh.client.client",
    "ConnectOptions": "mesh.broker.transport.options",
    "Job": "mesh.client.job",
    "Restarted": "mesh.client.assembly",
    "blocking": "mesh.blocking",
    "errors": "mesh.errors",
}
_HOMES |= dict.fromkeys(("RequestFields", "JobFields", "MessageDict"), "mesh.client.request_fields")
_HOMES |= dict.fromkeys(
    (
        "JobStatus",
        "Request",
        "Tier",
        "Message",
        "ResponseFormat",
        "StructuredOutputs",
        "Result",
        "Usage",
        "Timing",
        "ErrorInfo",
        "Started",
        "Delta",
        "Presence",
    ),
    "mesh.protocol.messages",
)

if not TYPE_CHECKING:  # a type checker that sees it believes that every name exists

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'mesh' has no attribute {name!r}")
        module = importlib.import_module(home)
        return module if home == f"mesh.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
