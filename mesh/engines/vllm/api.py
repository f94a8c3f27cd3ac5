"""The calls of vLLM's AsyncLLM, in vLLM's own types. Only this module handles the differences between its versions.

A VllmEngine creates the `VllmApi` after it has imported vLLM.
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
        """Return vLLM's outputs for an attempt, each with the new text and ids.

        Raises:
            One of VllmErrors: in this call, or on the first output.
        """
        arguments = attempt.arguments
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": attempt.prompt_ids}
        if structure := arguments.get("structured_outputs"):
            arguments = arguments | {"structured_outputs": self._structure(**structure)}
            # A prompt without a type goes through a thread of vLLM's, which also compiles the grammar.
            del prompt["type"]
        params = self._sampling_params(**arguments, **self._constants)
        stream: AsyncGenerator[Any, None] = self._llm.generate(prompt, params, request_id)
        return stream

    async def embed(self, token_ids: list[int], request_id: str) -> list[float] | None:
        """Return the vector of one prompt; None: vLLM aborted the request."""
        prompt = {"type": "token", "prompt_token_ids": token_ids}
        vector: list[float] | None = None
        async for output in self._llm.encode(prompt, self._pooling_params(task="embed"), request_id):
            vector = output.outputs.data.tolist()
        return vector or None

    async def describe(self, model: str, prompts: Prompts) -> EngineInfo:
        """Return the loaded model's tasks and limits.

        Raises:
            ConfigError: the model has no task that the mesh serves.
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
        """Return every token id that ends an answer of this model without a request's stop ids."""
        configured = self._llm.model_config.try_get_generation_config().get("eos_token_id")
        more: Sequence[int | None] = configured if isinstance(configured, list) else [configured]
        found = (getattr(tokenizer, "eos_token_id", None), *more)
        return frozenset(token_id for token_id in found if token_id is not None)

    async def abort(self, request_ids: list[str]) -> None:
        """Abort these requests; the reader of each gets a last output with the finish reason "abort"."""
        await self._llm.abort(request_ids)

    async def ping(self) -> None:
        """Wait for an answer of the core's own loop."""
        await self._llm.is_paused()
