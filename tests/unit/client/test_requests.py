"""A checked Request from what a program gives."""

from collections import deque
from typing import Any

import pytest

from mesh.client.requests import build_request, check_limits
from mesh.errors import InvalidRequestError, RequestError, TooLargeError, UnsupportedError
from mesh.protocol.messages import Message, Request


def test_text_becomes_a_prompt() -> None:
    assert build_request("Hello", {"max_tokens": 4}) == Request(prompt="Hello", max_tokens=4)


def test_a_list_becomes_messages() -> None:
    turns = [{"role": "user", "content": "Hello"}]
    wanted = Request(messages=[Message(role="user", content="Hello")])
    assert build_request(turns, {}) == build_request(tuple(turns), {}) == wanted
    assert build_request([Message(role="user", content="Hello")], {}) == wanted


def test_any_sequence_of_turns_becomes_messages() -> None:
    turns = deque([Message(role="user", content="Hello")], maxlen=5)
    assert build_request(turns, {}) == Request(messages=list(turns))


def test_a_whole_request_is_checked_and_taken() -> None:
    request = Request(prompt="Hello", temperature=0.0, stop=["x"], metadata={"k": [1]})
    assert build_request(request, {}) == request


def test_fields_alone_are_enough() -> None:
    assert build_request(None, {"input": ["a", "b"]}) == Request(input=["a", "b"])
    assert build_request(None, {"prompt_token_ids": [1, 2]}) == Request(prompt_token_ids=[1, 2])


def test_what_the_caller_gave_is_not_changed() -> None:
    fields: dict[str, Any] = {"metadata": {"k": "v"}}
    build_request("a", fields)
    assert fields == {"metadata": {"k": "v"}}


REFUSED = [
    (None, {}, InvalidRequestError, "prompt"),
    ("", {}, InvalidRequestError, "prompt"),
    ([], {}, InvalidRequestError, "messages"),
    ([{"role": "robot", "content": "a"}], {}, InvalidRequestError, "messages[0].role"),
    ("a", {"prompt": "b"}, InvalidRequestError, "prompt"),
    ("a", {"input": "b"}, InvalidRequestError, "prompt"),
    ("a", {"max_token": 4}, InvalidRequestError, "max_token"),
    ("a", {"tier": "batch"}, InvalidRequestError, "tier"),
    ("a", {"max_tokens": "4"}, InvalidRequestError, "max_tokens"),
    ("a", {"temperature": float("nan")}, InvalidRequestError, "temperature"),
    ("a", {"temperature": 3}, InvalidRequestError, "temperature"),
    ("a", {"id": "a.b"}, InvalidRequestError, "id"),
    ("a", {"seed": 2**63}, InvalidRequestError, "seed"),
    ("a", {"seed": 2**70}, InvalidRequestError, None),
    ("a", {"metadata": {"k": object()}}, InvalidRequestError, None),
    ("a", {"metadata": {"k": "v" * 20_000}}, TooLargeError, "metadata"),
    ("a", {"n": 2}, UnsupportedError, "n"),
    ("a", {"stop": {"x"}, "logprobs": True}, UnsupportedError, "logprobs"),
    ("\ud800", {}, InvalidRequestError, None),
    ("a", {"session": "\udfff"}, InvalidRequestError, None),
    (7, {}, InvalidRequestError, "prompt"),
    (b"a", {}, InvalidRequestError, "prompt"),
    (object(), {}, InvalidRequestError, None),
    (iter(["a"]), {}, InvalidRequestError, None),
    ({"role": "user"}, {}, InvalidRequestError, "prompt"),
    (Request(prompt="a"), {"max_tokens": 4}, InvalidRequestError, "max_tokens"),
    (Request(), {}, InvalidRequestError, "prompt"),
    (Request(prompt=7), {}, InvalidRequestError, "prompt"),  # type: ignore[arg-type]  # no checker keeps a user from it
    (Request(prompt="a", temperature=float("inf")), {}, InvalidRequestError, "temperature"),
    (Request(prompt="a", max_tokens=0), {}, InvalidRequestError, "max_tokens"),
    (Request(prompt="\ud800"), {}, InvalidRequestError, None),
    (Request(messages=[{"role": "nobody"}]), {}, InvalidRequestError, "messages[0].role"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("prompt", "fields", "error", "field"), REFUSED, ids=range(len(REFUSED)))
def test_what_the_worker_would_refuse_is_refused_here_with_its_field(
    prompt: Any, fields: dict[str, Any], error: type[RequestError], field: str | None
) -> None:
    with pytest.raises(RequestError) as refused:
        build_request(prompt, fields)
    assert type(refused.value) is error
    assert refused.value.field == field


def test_metadata_without_end_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    with pytest.raises(InvalidRequestError):
        build_request("a", {"metadata": loop})


@pytest.mark.parametrize("longest", [0, -1])
def test_a_model_that_tells_no_limit_has_none(longest: int) -> None:
    check_limits(Request(prompt_token_ids=[1] * 100, max_tokens=10**6), longest)


def test_what_surely_does_not_fit_the_context_is_refused_before_it_is_sent() -> None:
    check_limits(Request(prompt_token_ids=[1] * 7, max_tokens=8), 8)
    check_limits(Request(prompt="a"), 8)
    with pytest.raises(InvalidRequestError, match="9 is beyond the model's context of 8") as refused:
        check_limits(Request(prompt="a", max_tokens=9), 8)
    assert refused.value.field == "max_tokens"
    with pytest.raises(TooLargeError, match="8 tokens leave no room") as too_large:
        check_limits(Request(prompt_token_ids=[1] * 8), 8)
    assert too_large.value.field == "prompt_token_ids"


LOOP: dict[str, object] = {}
LOOP["x"] = LOOP


@pytest.mark.parametrize("metadata", [{"k": object()}, LOOP], ids=["object", "loop"])
def test_a_whole_request_that_cannot_be_sent_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        build_request(Request(prompt="a", metadata=metadata), {})


def test_a_choice_among_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        build_request("a", {"structured_outputs": {"choice": []}})
