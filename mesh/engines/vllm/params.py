"""Translates a Request into vLLM's arguments, and decides which interrupted answers can be continued. Pure.

msgspec checks the types again here, against those of `Request` itself, because a Request made in Python was never
decoded. One wrong type (`max_tokens=2.5`) passes vLLM's constructor and kills the input thread of its engine core.
Every later request then hangs without an error.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from mesh.errors import InvalidRequestError, TooLargeError
from mesh.protocol.messages import Int64, Message, Request, StructuredOutputs, TokenId
from mesh.protocol.validate import max_tokens, stop_strings, structure_of

_COPIED = (
    "min_tokens",
    "top_p",
    "min_p",
    "stop_token_ids",
    "ignore_eos",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "allowed_token_ids",
    "bad_words",
    "include_stop_str_in_output",
    "skip_special_tokens",
)
_MAPPED = (
    "max_tokens",
    "temperature",
    "top_k",
    "seed",
    "stop",
    "logit_bias",
    "structured_outputs",
    "response_format",
)
_INPUTS = ("prompt", "messages", "prompt_token_ids", "input")
_TOKEN_LISTS = ("stop_token_ids", "allowed_token_ids")

# A Request may omit the seed. An attempt may not, because all attempts must draw the same tokens.
_HINTS = get_type_hints(Request, include_extras=True) | {"seed": Int64}
_Checked: Any = msgspec.defstruct("_Checked", [(name, _HINTS[name]) for name in _COPIED + _MAPPED])
_AT = re.compile(r" - at (?:`key` in )?`\$\.?(?P<field>[^`\[.]*)[^`]*`$")

# vLLM reads a seed of -1 as no seed, and would draw other tokens in every attempt.
_SEED_INSTEAD_OF_MINUS_ONE = 2**63 - 1


def sampling_arguments(request: Request, seed: int, *, n_before: int = 0) -> dict[str, Any]:
    """Return arguments for vLLM's SamplingParams, `structured_outputs` as a dict of its own arguments.

    Args:
        seed: of the job; int64.
        n_before: output tokens kept from earlier attempts; they count towards the limits.

    Raises:
        InvalidRequestError: a value has the wrong type; the error names the field.
    """
    values = {name: getattr(request, name) for name in _COPIED + _MAPPED}
    values["seed"] = seed
    checked = _convert(values, _Checked)
    arguments: dict[str, Any] = {name: value for name in _COPIED if (value := getattr(checked, name)) is not None}
    arguments["max_tokens"] = max_tokens(request) - n_before
    arguments["min_tokens"] = max(0, checked.min_tokens - n_before)
    arguments["temperature"] = 1.0 if checked.temperature is None else checked.temperature
    arguments["top_k"] = max(0, checked.top_k)
    if arguments["temperature"] > 0:  # for a greedy request, vLLM would make a random generator and never use it
        arguments["seed"] = _SEED_INSTEAD_OF_MINUS_ONE if checked.seed == -1 else checked.seed
    if stops := stop_strings(checked):
        arguments["stop"] = list(stops)
    if checked.logit_bias is not None:
        arguments["logit_bias"] = {_token_id(key): bias for key, bias in checked.logit_bias.items()}
    if structure := structure_of(checked):
        arguments["structured_outputs"] = _structure_arguments(structure)
    return arguments


def checked_input(request: Request) -> str | list[dict[str, str]] | list[int] | list[str]:
    """Return the request's one input, its type checked: messages as dicts, `input` as a list.

    Raises:
        InvalidRequestError: a value has the wrong type; the error names the field.
    """
    if request.prompt is not None:
        prompt: str = _convert(request.prompt, str, "prompt")
        return prompt
    if request.messages is not None:
        turns: list[Message] = _convert(request.messages, list[Message], "messages")
        return [{"role": turn.role, "content": turn.content} for turn in turns]
    if request.prompt_token_ids is not None:
        token_ids: list[int] = _convert(request.prompt_token_ids, list[TokenId], "prompt_token_ids")
        return token_ids
    texts = [request.input] if isinstance(request.input, str) else request.input
    inputs: list[str] = _convert(texts, list[str], "input")
    return inputs


def checked_fields() -> frozenset[str]:
    """Return the fields of a Request that reach vLLM as sampling parameters."""
    return frozenset(_COPIED + _MAPPED)


def input_field(request: Request) -> str:
    """Return the name of the field with the request's input."""
    return next(name for name in _INPUTS if getattr(request, name) is not None)


def blamed_field(request: Request) -> str:
    """Return the field to name when vLLM refuses a request and names none.

    A grammar is the only other value that vLLM alone checks; without one, the input is at fault.
    """
    if request.structured_outputs is not None:
        return "structured_outputs"
    return "response_format" if structure_of(request) is not None else input_field(request)


def check_limits(request: Request, *, vocab_size: int, max_model_len: int) -> None:
    """Refuse parameters that this model cannot serve with any prompt.

    Raises:
        InvalidRequestError: a token id is outside the vocabulary, or `max_tokens` is more than the context.
    """
    if request.max_tokens is not None and request.max_tokens > max_model_len:
        raise InvalidRequestError(
            f"{request.max_tokens} is more than the model's context of {max_model_len} tokens",
            field="max_tokens",
        )
    for name in _TOKEN_LISTS:
        _check_token_ids(getattr(request, name) or (), vocab_size, name)
    _check_token_ids([_token_id(key) for key in request.logit_bias or ()], vocab_size, "logit_bias")


def check_prompt(token_ids: Sequence[int], *, n_output: int, vocab_size: int, max_model_len: int, field: str) -> None:
    """Refuse a prompt that is empty, leaves no room for `n_output` tokens, or has ids outside the vocabulary.

    Raises:
        InvalidRequestError: the prompt has no ids, or an id outside the vocabulary.
        TooLargeError: prompt and output do not fit the context; the message has the numbers.
    """
    if not token_ids:
        raise InvalidRequestError("the model's tokenizer makes no tokens of it", field=field)
    if len(token_ids) + n_output > max_model_len:
        room = " and at least one of output" if n_output else ""
        raise TooLargeError(
            f"{len(token_ids)} tokens{room} do not fit the model's context of {max_model_len}", field=field
        )
    _check_token_ids(token_ids, vocab_size, field)


def is_continuable(request: Request) -> bool:
    """Return whether the prompt plus k output tokens yields the same token k + 1 as an unbroken run.

    Only greedy requests do: in a continuation, a seeded generator starts again, and so does a grammar. Presence and
    frequency penalties and bad words look at output tokens only, and a continuation has these in its prompt.
    """
    return (
        request.temperature == 0
        and request.presence_penalty == 0
        and request.frequency_penalty == 0
        and not request.bad_words
        and structure_of(request) is None
    )


def finish_of(request: Request, token_ids: Sequence[int], stop_ids: Collection[int]) -> str | None:
    """Return why vLLM ends the answer after these output tokens, apart from stop strings; None: it continues.

    Args:
        stop_ids: the ids that end this request, from `stop_ids_of`.
    """
    if token_ids and token_ids[-1] in stop_ids:
        return "stop"
    return "length" if len(token_ids) >= max_tokens(request) else None


def stop_ids_of(request: Request, eos_ids: Collection[int]) -> frozenset[int]:
    """Return the token ids that end this request; `eos_ids` are the model's own."""
    own = frozenset(request.stop_token_ids or ())
    return own if request.ignore_eos else own | frozenset(eos_ids)


@dataclass(slots=True)
class StopScan:
    """Output text under stop strings, kept token by token as in vLLM's detokenizer.

    vLLM holds the last characters back, so token ids run ahead of the text. A stop string can begin before an
    interruption and end after it. So a continuation scans from the first output token.
    """

    stops: tuple[str, ...]
    keeps_stop: bool  # include_stop_str_in_output
    min_tokens: int
    text: str = ""
    n_tokens: int = 0
    n_shown: int = 0  # characters of `text` that `take` has returned

    @classmethod
    def of(cls, request: Request) -> "StopScan":
        return cls(stop_strings(request), request.include_stop_str_in_output, request.min_tokens)

    @property
    def held_chars(self) -> int:
        """The number of characters that are held back until the answer ends."""
        return 0 if self.keeps_stop else max(map(len, self.stops), default=1) - 1

    def add(self, piece: str) -> bool:
        """Append one token's text; return True if it completes a stop string, and end `text` there."""
        self.n_tokens += 1
        searched = len(self.text)
        self.text += piece
        if not piece or self.n_tokens <= self.min_tokens:
            return False
        best: tuple[int, int] | None = None  # end and start of the match that ends first
        for stop in self.stops:
            start = self.text.find(stop, max(0, searched + 1 - len(stop)))
            if start >= 0 and (best is None or start + len(stop) < best[0]):
                best = (start + len(stop), start)
        if best is None:
            return False
        self.text = self.text[: best[0] if self.keeps_stop else best[1]]
        return True

    def take(self, *, is_finished: bool) -> str:
        """Return the text that can be shown now and was not returned before."""
        end = len(self.text) if is_finished else len(self.text) - self.held_chars
        if end <= self.n_shown:
            return ""
        piece = self.text[self.n_shown : end]
        self.n_shown = end
        return piece


def _convert(value: Any, kind: Any, field: str | None = None) -> Any:
    try:
        return msgspec.convert(msgspec.to_builtins(value), kind, strict=True)
    except (TypeError, RecursionError) as error:  # an object that the wire format cannot carry
        raise InvalidRequestError(f"is not plain data: {error}", field=field) from None
    except msgspec.ValidationError as error:
        match = _AT.search(str(error))
        found = match["field"] if match and match["field"] else None
        reason = str(error)[: match.start()] if match else str(error)
        raise InvalidRequestError(reason[0].lower() + reason[1:], field=field or found) from None


def _structure_arguments(structure: StructuredOutputs) -> dict[str, Any]:
    values = ((name, getattr(structure, name)) for name in structure.__struct_fields__)
    return {name: value for name, value in values if value is not None and value is not False}


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdigit()):
        raise InvalidRequestError(f"the key {key[:20]!r} is not a token id", field="logit_bias")
    return int(key)


def _check_token_ids(token_ids: Sequence[int], vocab_size: int, field: str) -> None:
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < vocab_size):
        wrong = next(token_id for token_id in token_ids if not 0 <= token_id < vocab_size)
        raise InvalidRequestError(f"{wrong} is not one of the model's {vocab_size} token ids", field=field)
