"""vLLM is held to the engine contract, like every engine."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import pytest_asyncio

from mesh.engines.vllm.engine import VllmEngine, VllmSettings
from mesh.protocol.messages import Request
from tests.engines.conformance import EngineConformance


@pytest.mark.vllm
@pytest.mark.asyncio(loop_scope="session")
class TestVllmConformance(EngineConformance):
    @pytest_asyncio.fixture(loop_scope="session")
    async def engine(self, vllm_engine: VllmEngine) -> VllmEngine:
        return vllm_engine

    @pytest_asyncio.fixture(loop_scope="session")
    async def doomed_engine(  # type: ignore[override]  # a fixture: pytest calls it, and by its own parameters
        self, vllm_model: str
    ) -> AsyncGenerator[VllmEngine, None]:
        engine = VllmEngine(VllmSettings(vllm_model))
        await engine.start()
        yield engine
        await engine.stop()

    @pytest.fixture
    def make_request(self) -> Callable[..., Request]:
        def make(**fields: Any) -> Request:
            given: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0} | fields
            return Request(**given)

        return make
