"""Utilisation and memory of the GPUs this process may use, through NVML. Read by the command line for telemetry.

Without NVIDIA's library or driver, or without nvidia-ml-py (the extra `metrics`), no GPU is reported. No message is
logged, because most machines have no GPU.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from mesh.telemetry.readings import GpuReading


def visible(devices: str | None, uuids: Sequence[str]) -> list[int]:
    """Return the indices of the GPUs that CUDA_VISIBLE_DEVICES selects; an entry that names none ends the list."""
    if devices is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for entry in filter(None, (part.strip() for part in devices.split(","))):
        if entry.isdigit() and int(entry) < len(uuids):
            found.append(int(entry))
            continue
        matching = [index for index, uuid in enumerate(uuids) if uuid.startswith(entry)]
        if len(matching) != 1:
            break
        found += matching
    return found


class Gpus:
    """The GPUs that this process may use. `read` may block for some milliseconds, so call it in a thread."""

    def __init__(self, devices: str | None = None, nvml: Any = None) -> None:
        """Find the GPUs.

        Args:
            devices: the value to use where CUDA_VISIBLE_DEVICES is not set.
            nvml: replaces NVIDIA's library, for tests.
        """
        self._handles: list[tuple[int, str, Any]] = []
        self._nvml = nvml if nvml is not None else _library()
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._find(os.environ.get("CUDA_VISIBLE_DEVICES", devices))

    def __len__(self) -> int:
        return len(self._handles)

    def read(self) -> list[GpuReading]:
        """Return the current readings; a GPU that reports none is left out."""
        found = []
        for index, name, handle in self._handles:
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(GpuReading(str(index), name, self._busy(handle), int(memory.used), int(memory.total)))
        return found

    def _busy(self, handle: Any) -> float | None:
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._nvml.NVMLError:  # a MIG slice reports no utilisation
            return None

    def _find(self, devices: str | None) -> None:
        nvml = self._nvml
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        for index in visible(devices, uuids):
            self._handles.append((index, _text(nvml.nvmlDeviceGetName(handles[index])), handles[index]))


def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
