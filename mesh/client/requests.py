"""Builds a checked Request from a program's arguments. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mesh.errors import InvalidRequestError, TooLargeError
from mesh.protocol import codec
from mesh.protocol.messages import Request
from mesh.protocol.validate import validate

# A retry may differ in these fields and still be the same request: a deadline counted from now differs in each try.
NOT_ASKED = frozenset({"deadline_unix_ms", "result_ttl_ms", "stream", "session"})

_TEXTS = (str, bytes, bytearray, memoryview)  # sequences that are no list of messages


def difference(ours: Request, theirs: Request | None) -> str | None:
    """The first field in which two requests ask for something else, None if they ask for the same.

    `theirs` is None where it is no request at all.
    """
    if theirs is None:
        return "body"
    for name in Request.__struct_fields__:
        if name not in NOT_ASKED and not is_same(getattr(ours, name), getattr(theirs, name)):
            return name
    return None


def is_same(one: object, other: object) -> bool:
    """Whether two decoded values are the same; NaN, which no encoding tells apart, is itself."""
    return one == other or repr(one) == repr(other)


def build_request(prompt: object, fields: Mapping[str, object]) -> Request:
    """The request of these arguments, checked as the worker will check it.

    Args:
        prompt: text, the messages of a chat, a whole `Request`, or None. Anything else is refused.
        fields: other fields of the request by their names.

    Raises:
        InvalidRequestError, UnsupportedError, TooLargeError: with the field at fault.
    """
    given: dict[str, Any] | Request
    if isinstance(prompt, Request):
        if fields:
            raise InvalidRequestError("give a whole Request or single fields, not both", field=next(iter(fields)))
        given = prompt
    else:
        given = dict(fields)
        unknown = given.keys() - set(Request.__struct_fields__)
        if unknown:
            raise InvalidRequestError("is not a field of a request", field=min(unknown))
        if prompt is not None:
            is_chat = isinstance(prompt, Sequence) and not isinstance(prompt, _TEXTS)
            name = "messages" if is_chat else "prompt"
            if name in given:
                raise InvalidRequestError("given twice", field=name)
            given[name] = list(prompt) if isinstance(prompt, Sequence) and is_chat else prompt
    try:
        body = msgspec.msgpack.encode(given)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeError) as error:
        raise InvalidRequestError(f"a field cannot be sent: {error}") from None
    request = codec.decode_request(body, "msgpack")
    validate(request)
    return request


def check_limits(request: Request, max_model_len: int) -> None:
    """Refuse what the model's context surely cannot hold; `max_model_len` in tokens, 0 if it is not known.

    Raises:
        InvalidRequestError, TooLargeError: with the field and the numbers.
    """
    if max_model_len <= 0:
        return
    if request.max_tokens is not None and request.max_tokens > max_model_len:
        raise InvalidRequestError(
            f"{request.max_tokens} is beyond the model's context of {max_model_len} tokens",
            field="max_tokens",
        )
    ids = request.prompt_token_ids
    if ids is not None and len(ids) >= max_model_len:
        raise TooLargeError(
            f"{len(ids)} tokens leave no room for output in the model's context of {max_model_len}",
            field="prompt_token_ids",
        )
