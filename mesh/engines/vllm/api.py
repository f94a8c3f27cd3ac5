"""What the engine asks of vLLM, in vLLM's own types. Its versions differ here, and nowhere else is it seen.

Owned by a VllmEngine, made after vLLM was imported.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from mesh.engines.base import EngineInfo
from mesh.engines.vllm.attempt import VllmAttempt
from mesh.engines.vllm.prompt import Prompts
from mesh.engines.vllm.start import capacity
from mesh.errors import ConfigError


class VllmApi:
    """Calls of one AsyncLLM."""

    def __init__(self, llm: Any) -> None:
        import vllm
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        self._llm = llm
        self._sampling_params: Any = vllm.SamplingParams
        self._pooling_params: Any = vllm.PoolingParams
        self._structure: Any = StructuredOutputsParams
        self._constants: dict[str, Any] = {"output_kind": RequestOutputKind.DELTA}
        if "skip_clone" in vllm.SamplingParams.__struct_fields__:
            self._constants["skip_clone"] = True  # each request has parameters of its own
        self.version: str = vllm.__version__

    def generate(self, attempt: VllmAttempt, request_id: str) -> AsyncGenerator[Any, None]:
        """vLLM's outputs for an attempt, each with the text and ids that are new.

        Raises:
            One of VllmErrors: here, or when the first output is asked for.
        """
        arguments = attempt.arguments
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": attempt.prompt_ids}
        if structure := arguments.get("structured_outputs"):
            arguments = arguments | {"structured_outputs": self._structure(**structure)}
            # A prompt without a type is taken in by a thread of vLLM's; it compiles the grammar on the way.
            del prompt["type"]
        params = self._sampling_params(**arguments, **self._constants)
        stream: AsyncGenerator[Any, None] = self._llm.generate(prompt, params, request_id)
        return stream

    async def embed(self, token_ids: list[int], request_id: str) -> list[float] | None:
        """The vector of one prompt; None: vLLM broke the request off."""
        prompt = {"type": "token", "prompt_token_ids": token_ids}
        vector: list[float] | None = None
        async for output in self._llm.encode(prompt, self._pooling_params(task="embed"), request_id):
            vector = output.outputs.data.tolist()
        return vector or None

    async def describe(self, model: str, prompts: Prompts) -> EngineInfo:
        """What the loaded model is and can do.

        Raises:
            ConfigError: nothing that the mesh could serve.
        """
        tasks = set(await self._llm.get_supported_tasks())
        if not tasks & {"generate", "embed"}:
            raise ConfigError(f"{model!r} makes neither text nor vectors", key="model")
        return EngineInfo(
            name="vllm",
            version=self.version,
            model=model,
            capacity=capacity(self._llm.vllm_config),
            max_model_len=prompts.max_model_len,
            generates="generate" in tasks,
            chats="generate" in tasks and prompts.chats,
            embeds="embed" in tasks,
        )

    def eos_ids(self, tokenizer: Any) -> frozenset[int]:
        """Every token id that ends an answer of this model by itself."""
        configured = self._llm.model_config.try_get_generation_config().get("eos_token_id")
        more: Sequence[int | None] = configured if isinstance(configured, list) else [configured]
        found = (getattr(tokenizer, "eos_token_id", None), *more)
        return frozenset(token_id for token_id in found if token_id is not None)

    async def abort(self, request_ids: list[str]) -> None:
        """End these requests; whoever reads one gets a last output with the finish reason "abort"."""
        await self._llm.abort(request_ids)

    async def ping(self) -> None:
        """Have the core's own loop answer."""
        await self._llm.is_paused()
