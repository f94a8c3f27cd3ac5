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
    from mesh.client.assembly import Restarted
    from mesh.client.client import Client, connect
    from mesh.client.job import Job
    from mesh.protocol.messages import Delta, Message, Presence, Request, Result, Started, Usage

__all__ = [
    "connect",
    "blocking",
    "errors",
    "Client",
    "Job",
    "Request",
    "Message",
    "Result",
    "Usage",
    "Started",
    "Delta",
    "Restarted",
    "Presence",
]

# Where each name lives; imported when it is first used, so that `import mesh` costs nothing.
_HOMES = {
    "connect": "mesh.client.client",
    "Client": "mesh.client.client",
    "Job": "mesh.client.job",
    "Restarted": "mesh.client.assembly",
    "blocking": "mesh.blocking",
    "errors": "mesh.errors",
} | dict.fromkeys(("Request", "Message", "Result", "Usage", "Started", "Delta", "Presence"), "mesh.protocol.messages")


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mesh' has no attribute {name!r}")
    module = importlib.import_module(home)
    return module if home == f"mesh.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
