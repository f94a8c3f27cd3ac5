"""GPUs are reported where there are some, and nothing is logged where there are none."""

import pytest

from mesh.telemetry.gpu import Gpus, visible

UUIDS = ["GPU-aaaa-1", "GPU-aaaa-2", "GPU-bbbb-1"]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("GPU-bbbb", [2]),
        ("GPU-aaaa-2,0", [1, 0]),
        ("0,-1,1", [0]),  # as in CUDA: an invalid entry ends the list
        ("GPU-aaaa", []),  # two of them
        ("7", []),
    ],
)
def test_only_what_cuda_may_use_is_shown(devices: str | None, expected: list[int]) -> None:
    assert visible(devices, UUIDS) == expected


class Nvml:
    """A library with two GPUs; the second reports no utilisation."""

    class NVMLError(Exception):
        pass

    def __init__(self, works: bool = True) -> None:
        self.works = works

    def nvmlInit(self) -> None:
        if not self.works:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-{handle}".encode()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> type:
        return type("Memory", (), {"used": 10, "total": 80})

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> type:
        if handle == 1:
            raise self.NVMLError("Not Supported")
        return type("Rates", (), {"gpu": 50, "memory": 20})


def test_utilisation_and_memory_are_read_in_base_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = Gpus(nvml=Nvml()).read()
    assert (first.gpu, first.busy_ratio, first.used_bytes, first.total_bytes) == ("0", 0.5, 10, 80)
    assert second.busy_ratio is None


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Gpus(nvml=Nvml(works=False)).read() == []
    assert caplog.text == ""


def test_the_real_library_is_no_trouble_where_there_is_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pynvml")
    assert isinstance(Gpus().read(), list)
    assert caplog.text == ""
