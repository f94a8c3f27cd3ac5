"""One vLLM for the whole run: loading it takes longer than every test on it."""

import importlib.util
import os
import warnings
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.engines.vllm.engine import VllmEngine, VllmSettings
from mesh.engines.vllm.gauges import VllmGauges

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model" / "model"


def require_vllm() -> None:
    """Skip where vLLM is not installed, except in CI: there a missing engine is a failure."""
    missing = [
        name
        for name, found in (
            ("vLLM (mesh install vllm)", importlib.util.find_spec("vllm")),
            ("examples/demo_model/model", (DEMO_MODEL / "config.json").exists()),
        )
        if not found
    ]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI without {' and '.join(missing)}")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")


@pytest.fixture(scope="session")
def vllm_model() -> str:
    require_vllm()
    return str(DEMO_MODEL)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_engine(vllm_model: str) -> AsyncGenerator[VllmEngine, None]:
    engine = VllmEngine(VllmSettings(vllm_model, gauges=VllmGauges()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that vLLM imports
        await engine.start()
    yield engine
    await engine.stop()
