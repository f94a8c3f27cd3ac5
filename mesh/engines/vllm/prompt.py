"""Turns a Request's input into token ids of the model: plain text, a chat through its template, or the given ids.

A VllmEngine owns one `Prompts` and calls it once for each attempt, before it calls vLLM.
"""

import asyncio
import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mesh.engines.vllm.errors import VllmErrors
from mesh.engines.vllm.params import check_prompt, checked_input
from mesh.errors import ConfigError, TooLargeError, UnsupportedError
from mesh.protocol.messages import Request

# Up to this length, tokenizing takes less time than two thread switches, so it runs on the event loop.
INLINE_CHARS = 4096


class Prompts:
    """Tokenizes for one engine, with vLLM's own tokenizer, so the ids are the ones that vLLM would make."""

    def __init__(self, engine: Any, errors: VllmErrors) -> None:
        self._renderer = getattr(engine, "renderer", None)
        self._tokenizer = engine.get_tokenizer()
        if self._tokenizer is None:
            raise ConfigError("the engine was started without a tokenizer", key="skip_tokenizer_init")
        # A Hugging Face tokenizer keeps state during a call, so the thread gets a copy.
        self._threads_tokenizer = copy.deepcopy(self._tokenizer)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mesh-tokenizer")
        self._errors = errors
        self.tokenizer = self._tokenizer
        self.vocab_size: int = engine.model_config.get_vocab_size()
        self.max_model_len: int = engine.model_config.max_model_len
        self.chats = self._has_template()

    async def token_ids(self, request: Request) -> list[int]:
        """Return the prompt as n >= 1 ids, with room for at least one token of output.

        Raises:
            RequestError: the prompt has no ids, too many, or ids outside the vocabulary.
        """
        value: Any = checked_input(request)
        if request.prompt is not None:
            field, ids = "prompt", (await self._encode([value], "prompt"))[0]
        elif request.messages is not None:
            field, ids = "messages", await self._render(value)
        else:
            field, ids = "prompt_token_ids", value
        self._check(ids, field, n_output=1)
        return ids

    async def inputs(self, request: Request) -> list[list[int]]:
        """Return the ids of every string in `input`, in order.

        Raises:
            RequestError: a string has no ids, or too many.
        """
        texts: Any = checked_input(request)
        found = await self._encode(texts, "input")
        for ids in found:
            self._check(ids, "input", n_output=0)
        return found

    def close(self) -> None:
        """End the thread, and discard its remaining work."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _check(self, ids: list[int], field: str, *, n_output: int) -> None:
        check_prompt(
            ids,
            n_output=n_output,
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len,
            field=field,
        )

    async def _encode(self, texts: list[str], field: str) -> list[list[int]]:
        longest = max(map(len, texts))
        if longest > self.max_model_len * getattr(self._tokenizer, "max_chars_per_token", longest):
            raise TooLargeError(
                f"{longest} characters cannot fit the model's context of {self.max_model_len} tokens",
                field=field,
            )
        try:
            if sum(map(len, texts)) <= INLINE_CHARS:
                return [self._tokenizer.encode(text) for text in texts]
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._encode_in_thread, texts)
        except self._errors.all as error:
            raise self._errors.mapped(error, field=field, has_output=False) from error

    def _encode_in_thread(self, texts: list[str]) -> list[list[int]]:
        return [self._threads_tokenizer.encode(text) for text in texts]

    async def _render(self, messages: list[dict[str, str]]) -> list[int]:
        if not self.chats:
            raise UnsupportedError("the model has no chat template; send a prompt", field="messages")
        try:
            if hasattr(self._renderer, "render_chat_async"):
                return await self._render_by_vllm(messages)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._render_by_template, messages)
        except self._errors.all as error:
            raise self._errors.mapped(error, field="messages", has_output=False) from error

    async def _render_by_vllm(self, messages: list[dict[str, str]]) -> list[int]:
        from vllm.renderers.params import ChatParams

        renderer: Any = self._renderer
        template = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": True})
        limits = getattr(renderer, "default_chat_tok_params", None)
        if dataclasses.is_dataclass(limits) and not isinstance(limits, type):
            # vLLM's check stops counting at its limit; `_check` reports the full number of tokens.
            limits = dataclasses.replace(limits, max_total_tokens=None)
        if sum(len(message["content"]) for message in messages) <= INLINE_CHARS:
            _, prompts = renderer.render_chat([messages], template, limits)
        else:
            _, prompts = await renderer.render_chat_async([messages], template, limits)
        ids = prompts[0].get("prompt_token_ids")
        if ids is None:
            raise UnsupportedError("the model's chat template makes no token ids", field="messages")
        return list(ids)

    def _render_by_template(self, messages: list[dict[str, str]]) -> list[int]:
        """Render a chat for a vLLM without renderers; transformers 5 returns a dict, earlier versions the ids."""
        found = self._threads_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
        return list(found["input_ids"] if hasattr(found, "keys") else found)

    def _has_template(self) -> bool:
        if getattr(self._tokenizer, "chat_template", None):
            return True
        # Renderers of some model families build the chat in code, without a template.
        return self._renderer is not None and type(self._renderer).__name__ != "HfRenderer"
