"""Checks a request beyond its types. Clients and workers run the same checks. Pure.

The first fault is raised, with its field. The engine checks the limits of its model, such as context length.
"""

import hashlib
import math
from typing import Any

import msgspec

from mesh.errors import InvalidRequestError, TooLargeError, UnsupportedError
from mesh.job_key import JobKey
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, DEFAULT_MAX_TOKENS, Request, StructuredOutputs
from mesh.protocol.subjects import check_token

# Bounds that keep one request from costing the whole engine; each far above honest use.
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
MAX_TOKEN_LISTS = 4096  # stop_token_ids, allowed_token_ids, logit_bias
MAX_SCHEMA_BYTES = 65_536  # a 1 MB choice list held vLLM's grammar compiler for 40 s
MAX_INPUTS = 2048  # OpenAI's bound for one embeddings request
MAX_METADATA_BYTES = 16_384

_INPUTS = ("prompt", "messages", "prompt_token_ids", "input")
_NUMBERS = ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"]
_NOT_SERVED = [
    "best_of",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "echo",
    "suffix",
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "modalities",
    "audio",
]
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "logprobs": (False,),
    "echo": (False,),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
}


def validate(request: Request) -> None:
    """Check everything that does not depend on the model.

    Raises:
        InvalidRequestError, UnsupportedError, TooLargeError: the first fault, with its field.
    """
    if request.id is not None:
        check_token("id", request.id)
    if request.session is not None and not 0 < len(request.session) <= 256:
        raise InvalidRequestError("must have 1 to 256 characters", field="session")
    _check_input(request)
    _check_numbers(request)
    _check_not_served(request)
    _check_stops(request)
    _check_token_lists(request)
    _check_structure(request)
    if request.min_tokens > max_tokens(request):
        raise InvalidRequestError(f"is more than max_tokens ({max_tokens(request)})", field="min_tokens")
    if request.metadata is not None and _encoded_size(request.metadata, "metadata") > MAX_METADATA_BYTES:
        raise TooLargeError(f"more than {MAX_METADATA_BYTES} bytes", field="metadata")


def deadline_of(request: Request | None, stored_unix_ms: int) -> int:
    """When a job expires, in Unix ms; a body that is no request has the default time."""
    if request is not None and request.deadline_unix_ms is not None:
        return request.deadline_unix_ms
    return stored_unix_ms + DEFAULT_DEADLINE_MS


def max_tokens(request: Request) -> int:
    """The most output tokens this job may have, over all its attempts."""
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def stop_strings(request: Request) -> tuple[str, ...]:
    """The stop strings, none if there are none."""
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def structure_of(request: Request) -> StructuredOutputs | None:
    """The structure the output must have, whichever of the two fields asks for it; None: free text."""
    if request.structured_outputs is not None:
        return request.structured_outputs
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutputs(json_object=True)
    return StructuredOutputs(json=(wanted.json_schema or {}).get("schema"))


def seed_of(request: Request, key: JobKey) -> int:
    """The seed of every attempt at this job: the request's own, or one derived from its identity."""
    if request.seed is not None:
        return request.seed
    digest = hashlib.blake2b(f"{key.tenant}.{key.id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # non-negative and within int64


def _check_input(request: Request) -> None:
    given = [name for name in _INPUTS if getattr(request, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none"
        raise InvalidRequestError(f"give exactly one of {', '.join(_INPUTS)}; found {found}", field="prompt")
    name = given[0]
    value = getattr(request, name)
    if len(value) == 0:
        raise InvalidRequestError("must not be empty", field=name)
    if name == "input" and not isinstance(value, str):
        if len(value) > MAX_INPUTS:
            raise TooLargeError(f"more than {MAX_INPUTS} strings", field=name)
        if not all(value):
            raise InvalidRequestError("holds an empty string", field=name)


def _check_numbers(request: Request) -> None:
    """JSON has no NaN, MessagePack does, and NaN passes every comparison of a range check."""
    numbers: list[tuple[str, float | None]] = [(name, getattr(request, name)) for name in _NUMBERS]
    numbers += [("logit_bias", bias) for bias in (request.logit_bias or {}).values()]
    for name, value in numbers:
        if value is not None and not math.isfinite(value):
            raise InvalidRequestError("must be a finite number", field=name)


def _check_not_served(request: Request) -> None:
    if request.n is not None and request.n != 1:
        if request.n < 1:
            raise InvalidRequestError("must be 1", field="n")
        raise UnsupportedError("one answer a job; submit several jobs instead", field="n")
    for name in _NOT_SERVED:
        value = getattr(request, name)
        if value is not None and value not in _HARMLESS.get(name, ()):
            raise UnsupportedError("not served by this mesh", field=name)


def _check_stops(request: Request) -> None:
    stops = stop_strings(request)
    if len(stops) > MAX_STOP_STRINGS:
        raise InvalidRequestError(f"more than {MAX_STOP_STRINGS} strings", field="stop")
    if not all(0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise InvalidRequestError(f"each string must have 1 to {MAX_STOP_CHARS} characters", field="stop")


def _check_token_lists(request: Request) -> None:
    for name in ("stop_token_ids", "allowed_token_ids", "logit_bias", "bad_words"):
        value = getattr(request, name)
        if value is not None and len(value) > MAX_TOKEN_LISTS:
            raise TooLargeError(f"more than {MAX_TOKEN_LISTS} entries", field=name)
    if request.allowed_token_ids is not None and not request.allowed_token_ids:
        raise InvalidRequestError("must not be empty", field="allowed_token_ids")
    for word in request.bad_words or ():
        if not 0 < len(word) <= MAX_STOP_CHARS:
            raise InvalidRequestError(f"each must have 1 to {MAX_STOP_CHARS} characters", field="bad_words")
    for key in request.logit_bias or ():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequestError(f"the key {key[:20]!r} is not a token id", field="logit_bias")


def _check_structure(request: Request) -> None:
    wanted, own = request.response_format, request.structured_outputs
    if wanted is not None and wanted.type != "text" and own is not None:
        raise InvalidRequestError("give this or response_format, not both", field="structured_outputs")
    if wanted is not None and wanted.type == "json_schema":
        schema = (wanted.json_schema or {}).get("schema")
        if not isinstance(schema, dict):
            raise InvalidRequestError("needs json_schema.schema, an object", field="response_format")
    if own is not None:
        given = [name for name in own.__struct_fields__ if getattr(own, name) not in (None, False)]
        if len(given) != 1:
            raise InvalidRequestError(
                "give exactly one of json, regex, choice, grammar, json_object", field="structured_outputs"
            )
        if own.choice is not None and not (own.choice and all(own.choice)):
            raise InvalidRequestError("needs a choice, and each a character", field="structured_outputs.choice")
    structure = structure_of(request)
    if structure is not None and _encoded_size(structure, "structured_outputs") > MAX_SCHEMA_BYTES:
        raise TooLargeError(f"more than {MAX_SCHEMA_BYTES} bytes", field="structured_outputs")


def _encoded_size(value: Any, field: str) -> int:
    """Bytes of `value` as the Result will carry it."""
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError) as error:
        raise InvalidRequestError(f"cannot be written as JSON: {error}", field=field) from None
