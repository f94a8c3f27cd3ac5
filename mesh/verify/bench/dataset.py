"""Data sets and traces for a benchmark: ShareGPT's JSON, and traces with one JSON object a line. Pure.

A trace line may have: `timestamp` (ms) or `at_s`, `prompt` or `messages` or `input_length`, `output_length` or
`max_tokens`, `tenant`, `tier`. That covers the traces published with Mooncake (timestamp, input_length, output_length).
"""

from typing import Any

import msgspec

from mesh.errors import ConfigError
from mesh.protocol.subjects import check_tier, check_token
from mesh.verify.bench.plan import MAX_TOKENS, Item

MAX_ITEMS = 1_000_000
TOKEN_CHARS = 4  # of English text, about; estimates the length of a ShareGPT answer


def read_items(body: bytes, name: str) -> list[Item]:
    """Read the requests of the file `name`, in the file's order, or sorted by time if every line has one.

    Raises:
        ConfigError: the file has another format, or a line cannot be used; the message names the line.
    """
    if body.lstrip()[:1] == b"[":
        items = _sharegpt(body, name)
    else:
        items = [
            _line(line, f"{name} line {number}") for number, line in enumerate(body.splitlines(), 1) if line.strip()
        ]
    if not items:
        raise ConfigError(f"--dataset {name} holds no requests", key="dataset")
    if len(items) > MAX_ITEMS:
        raise ConfigError(f"--dataset {name} holds {len(items)} requests, more than {MAX_ITEMS}", key="dataset")
    if all(item.at_s is not None for item in items):
        items.sort(key=lambda item: item.at_s or 0.0)
    return items


def _sharegpt(body: bytes, name: str) -> list[Item]:
    """Return the first question of each conversation, with the length of its answer."""
    try:
        conversations = msgspec.json.decode(body, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"--dataset {name} is no ShareGPT file: {error}", key="dataset") from None
    items = []
    for each in conversations:
        turns = each.get("conversations") or each.get("conversation") or []
        first = turns[:2] if isinstance(turns, list) else []
        texts = [turn.get("value") for turn in first if isinstance(turn, dict)]
        match texts:
            case [str() as question, str() as answer] if question and answer:
                output = min(MAX_TOKENS, max(1, len(answer) // TOKEN_CHARS))
                items.append(Item(prompt=question, output_tokens=output))
    return items


def _line(line: bytes, where: str) -> Item:
    try:
        found = msgspec.json.decode(line, type=dict[str, Any])
        at_s = found.get("at_s")
        if at_s is None and found.get("timestamp") is not None:
            at_s = float(found["timestamp"]) / 1000
        return Item(
            prompt=_as(str, found.get("prompt")),
            messages=_as(list, found.get("messages")),
            input_tokens=_count(found.get("input_length")),
            output_tokens=_count(found.get("output_length", found.get("max_tokens"))),
            at_s=_as(float, at_s),
            tenant=None if found.get("tenant") is None else check_token("tenant", found["tenant"]),
            tier=None if found.get("tier") is None else check_tier(found["tier"]),
        )
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"--dataset {where} cannot be used: {error}", key="dataset") from None


def _as(kind: type, value: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    if isinstance(value, float) and not 0 <= value < 1e9:
        raise ValueError(f"{value!r} is not a time since the start, in seconds")
    return value


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOKENS:
        raise ValueError(f"{value!r} is not a number of tokens")
    return value
