"""Reads a request for the simulator: prompt tokens, the plan of the output, the requested fault. Pure.

A request asks for a fault in `metadata["simulate"]`, an object with at most one of

    {"refuse": "why"}          InvalidRequestError
    {"fail": true}             EngineFailedError before the first token
    {"fail_after": n}          EngineFailedError after n tokens of this attempt
    {"hang_after": n}          no more tokens of this job; other jobs continue
    {"hang_engine_after": n}   no more tokens of any job, and no answer to `probe`
    {"die_after": n}           the engine is dead: EngineDeadError for every call
    {"exit_after": n}          the process ends at once, without cleaning up

and with any of

    {"times": k}               the fault occurs in the first k attempts at this job that this engine object sees
    {"fresh_only": true}       no fault in attempts that continue from tokens of an earlier one
    {"slow": factor}           the first token and each later one take `factor` >= 1 times as long

n >= 0 counts the tokens of this attempt, so that a poison request is poison to every worker. A fault occurs when the
reader has taken these tokens and asks for more. An embedding makes no tokens, so only n = 0 applies to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.engines.simulator.text import CHARS_PER_TOKEN, Plan, output_key, tokenize
from mesh.errors import InvalidRequestError, TooLargeError, UnsupportedError
from mesh.protocol.messages import Request
from mesh.protocol.validate import max_tokens, stop_strings, structure_of

_FIELD = "metadata.simulate"
_COUNTED = ("fail_after", "hang_after", "hang_engine_after", "die_after", "exit_after")
_KINDS = ("refuse", "fail", *_COUNTED)
_KNOWN = (*_KINDS, "times", "fresh_only", "slow")


@dataclass(frozen=True, slots=True)
class SimulatedFault:
    """A fault and its time. The default: no fault."""

    kind: str | None = None  # "refuse", "fail", "hang", "hang_engine", "die", "exit"
    after_tokens: int = 0  # tokens of this attempt
    times: int | None = None  # None: every attempt
    fresh_only: bool = False
    slow: float = 1.0


def fault_of(request: Request) -> SimulatedFault:
    """Return the fault that the request asks for.

    Raises:
        InvalidRequestError: a key is unknown, a type is wrong, or two faults are given; or the fault is "refuse".
    """
    wanted = (request.metadata or {}).get("simulate")
    if wanted is None:
        return SimulatedFault()
    if not isinstance(wanted, dict):
        raise InvalidRequestError("must be an object", field=_FIELD)
    for key, value in wanted.items():
        _check_fault_entry(key, value)
    kinds = [key for key in _KINDS if wanted.get(key, False) is not False]
    if len(kinds) > 1:
        raise InvalidRequestError(f"give one of {' and '.join(kinds)}, not both", field=_FIELD)
    if "refuse" in kinds:
        raise InvalidRequestError(wanted["refuse"], field=_FIELD)
    kind = kinds[0] if kinds else None
    return SimulatedFault(
        kind=kind and kind.removesuffix("_after"),
        after_tokens=wanted[kind] if kind in _COUNTED else 0,
        times=wanted.get("times"),
        fresh_only=wanted.get("fresh_only", False),
        slow=wanted.get("slow", 1.0),
    )


def _check_fault_entry(key: str, value: Any) -> None:
    if key not in _KNOWN:
        raise InvalidRequestError(f"unknown key {key[:40]!r}; known: {', '.join(_KNOWN)}", field=_FIELD)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "refuse":
        is_right, wanted = isinstance(value, str) and bool(value), "a string"
    elif key in ("fail", "fresh_only"):
        is_right, wanted = isinstance(value, bool), "true or false"
    elif key == "slow":
        is_right, wanted = is_number and 1 <= value <= 1_000_000, "a number from 1 to 1000000"
    else:
        is_right, wanted = is_number and isinstance(value, int) and value >= 0, "a whole number, 0 or more"
    if not is_right:
        raise InvalidRequestError(f"{key} must be {wanted}", field=_FIELD)


def prompt_ids(request: Request, settings: SimulatorSettings) -> Sequence[int]:
    """Return the prompt as n >= 1 token ids, with room for at least one token of output.

    Raises:
        InvalidRequestError: there is no prompt, or an id is not in the vocabulary.
        TooLargeError: the prompt fills the context.
    """
    limit = settings.max_model_len
    if request.prompt_token_ids is not None:
        _check_room(len(request.prompt_token_ids), limit, "prompt_token_ids")
        if not 0 <= max(request.prompt_token_ids) < settings.vocabulary_tokens:
            most = settings.vocabulary_tokens - 1
            raise InvalidRequestError(f"an id is more than {most}, the last one", field="prompt_token_ids")
        return request.prompt_token_ids
    if request.messages is not None:
        field, text = "messages", "".join(f"<{turn.role}>{turn.content}\n" for turn in request.messages)
        text += "<assistant>"
    elif request.prompt is not None:
        field, text = "prompt", request.prompt
    else:
        raise InvalidRequestError("an embedding is not generated; give a prompt", field="input")
    # Counted before it is tokenized: a refusal must be fast.
    _check_room(count_tokens(text), limit, field)
    return tokenize(text, settings.vocabulary_tokens)


def count_tokens(text: str) -> int:
    """Return how many tokens `tokenize` makes of `text`."""
    return -(-len(text) // CHARS_PER_TOKEN)


def plan_of(request: Request, seed: int | None, prompt: Sequence[int], settings: SimulatorSettings) -> Plan:
    """Return all values that determine the output.

    The seed has an effect unless temperature is 0. The other sampling parameters shape a distribution, and the
    simulator has none, so they have no effect.

    Raises:
        InvalidRequestError: `max_tokens` is more than the context.
        UnsupportedError: a field restricts the choice of tokens, and the simulator cannot obey it.
    """
    limit = settings.max_model_len
    if request.max_tokens is not None and request.max_tokens > limit:
        reason = f"is {request.max_tokens}; the model's context has {limit} tokens"
        raise InvalidRequestError(reason, field="max_tokens")
    if structure_of(request) is not None:
        field = "response_format" if request.structured_outputs is None else "structured_outputs"
        raise UnsupportedError("the simulator writes free text only", field=field)
    for field in ("logit_bias", "allowed_token_ids", "bad_words"):
        if getattr(request, field):
            raise UnsupportedError("the simulator has no choice of tokens", field=field)
    return Plan(
        key=output_key(prompt, None if request.temperature == 0 else seed),
        vocabulary_tokens=settings.vocabulary_tokens,
        most_tokens=min(max_tokens(request), limit - len(prompt)),
        min_tokens=request.min_tokens,
        stops=stop_strings(request),
        stop_token_ids=frozenset(request.stop_token_ids or ()),
        includes_stop=request.include_stop_str_in_output,
    )


def inputs_of(request: Request, settings: SimulatorSettings) -> list[str]:
    """Return the strings to embed, n >= 1.

    Raises:
        InvalidRequestError: there is no input.
        TooLargeError: a string is longer than the context.
    """
    if request.input is None:
        raise InvalidRequestError("missing; only input can be embedded", field="input")
    texts = [request.input] if isinstance(request.input, str) else request.input
    for text in texts:
        _check_room(count_tokens(text), settings.max_model_len + 1, "input")
    return texts


def _check_room(tokens: int, limit: int, field: str) -> None:
    if tokens >= limit:
        raise TooLargeError(f"{tokens} tokens; the model's context leaves room for {limit - 1}", field=field)
