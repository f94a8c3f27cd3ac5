"""The fields of a request as a program gives them by name, for its type checker. Pure.

`Request` is the same on the wire; tests/types/test_request_fields.py holds the two equal.
"""

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

from mesh.protocol.messages import Message, ResponseFormat, Role, StructuredOutputs


class MessageDict(TypedDict):
    """A `Message` as a plain dict."""

    role: Role
    content: str


class ResponseFormatDict(TypedDict):
    """A `ResponseFormat` as a plain dict."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NotRequired[dict[str, Any] | None]


class StructuredOutputsDict(TypedDict, total=False):
    """A `StructuredOutputs` as a plain dict: exactly one of these."""

    json: str | dict[str, Any] | None
    regex: str | None
    choice: list[str] | None
    grammar: str | None
    json_object: bool | None


Messages = Sequence[Message | MessageDict]  # n >= 1 turns of a chat, oldest first


class JobFields(TypedDict, total=False):
    """The fields of `Request` that apply to every kind of job. `embed` takes these."""

    id: str | None
    deadline_unix_ms: int | None
    result_ttl_ms: int
    session: str | None
    metadata: dict[str, Any] | None
    on_worker_loss: Literal["resume", "restart", "fail"]


class RequestFields(JobFields, total=False):
    """The fields of `Request` beside its prompt. `submit` and `generate` take these; `Request` explains each."""

    messages: Messages | None
    prompt_token_ids: list[int] | None
    input: str | list[str] | None

    max_tokens: int | None
    min_tokens: int
    temperature: float | None
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: str | list[str] | None
    stop_token_ids: list[int] | None
    ignore_eos: bool
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: dict[str, float] | None
    allowed_token_ids: list[int] | None
    bad_words: list[str] | None
    include_stop_str_in_output: bool
    skip_special_tokens: bool
    response_format: ResponseFormat | ResponseFormatDict | None
    structured_outputs: StructuredOutputs | StructuredOutputsDict | None
    stream: bool

    # Known to OpenAI's or vLLM's API and not served here: a value that means something is refused as `unsupported`.
    n: int | None
    best_of: int | None
    logprobs: Any
    top_logprobs: Any
    prompt_logprobs: Any
    echo: Any
    suffix: Any
    tools: Any
    tool_choice: Any
    functions: Any
    function_call: Any
    modalities: Any
    audio: Any
