"""Each bound of a request, on both of its sides."""

import math
from typing import Any

import pytest

from mesh.errors import InvalidRequestError, RequestError, TooLargeError, UnsupportedError
from mesh.job_key import JobKey
from mesh.protocol import validate as rules
from mesh.protocol.messages import DEFAULT_MAX_TOKENS, Message, Request, ResponseFormat, StructuredOutputs
from mesh.protocol.validate import max_tokens, seed_of, stop_strings, structure_of, validate


def make(**fields: Any) -> Request:
    return Request(**{"prompt": "a"} | fields)


ALLOWED: dict[str, dict[str, Any]] = {
    "a prompt": {},
    "messages": {"prompt": None, "messages": [Message(role="user", content="")]},
    "token ids": {"prompt": None, "prompt_token_ids": [0]},
    "an input": {"prompt": None, "input": "a"},
    "as many inputs as there may be": {"prompt": None, "input": ["a"] * rules.MAX_INPUTS},
    "the longest id": {"id": "j" * 64},
    "the longest session": {"session": "s" * 256},
    "the longest stop": {"stop": "s" * rules.MAX_STOP_CHARS},
    "the most stops": {"stop": ["s"] * rules.MAX_STOP_STRINGS},
    "no stops": {"stop": []},
    "the most stop ids": {"stop_token_ids": [1] * rules.MAX_TOKEN_LISTS},
    "the most allowed ids": {"allowed_token_ids": [1] * rules.MAX_TOKEN_LISTS},
    "the most bad words": {"bad_words": ["w"] * rules.MAX_TOKEN_LISTS},
    "the longest bad word": {"bad_words": ["w" * rules.MAX_STOP_CHARS]},
    "a bias of ten digits": {"logit_bias": {"2147483647": 1.0}},
    "min as many as max": {"max_tokens": 5, "min_tokens": 5},
    "min as many as the default": {"min_tokens": DEFAULT_MAX_TOKENS},
    "metadata up to its bound": {"metadata": {"k": "v" * (rules.MAX_METADATA_BYTES - 8)}},
    "one answer": {"n": 1, "best_of": 1},
    "what is not served, and not meant": {
        "logprobs": False,
        "echo": False,
        "tools": [],
        "tool_choice": "none",
        "functions": [],
        "function_call": "none",
        "modalities": ["text"],
    },
    "free text": {"response_format": ResponseFormat(type="text")},
    "free text and a structure": {
        "response_format": ResponseFormat(type="text"),
        "structured_outputs": StructuredOutputs(regex="a+"),
    },
    "a schema": {"response_format": ResponseFormat(type="json_schema", json_schema={"schema": {"type": "object"}})},
    "an empty schema object": {"structured_outputs": StructuredOutputs(json={})},
    "any JSON object": {"structured_outputs": StructuredOutputs(json_object=True)},
    "json_object unsaid": {"structured_outputs": StructuredOutputs(grammar="root ::= 'a'", json_object=False)},
}

# what, fields, error, field at fault
REFUSED = [
    ("nothing to do", {"prompt": None}, InvalidRequestError, "prompt"),
    ("two things to do", {"prompt_token_ids": [1]}, InvalidRequestError, "prompt"),
    ("all four", {"messages": [], "prompt_token_ids": [], "input": ""}, InvalidRequestError, "prompt"),
    ("an empty prompt", {"prompt": ""}, InvalidRequestError, "prompt"),
    ("no messages", {"prompt": None, "messages": []}, InvalidRequestError, "messages"),
    ("no ids", {"prompt": None, "prompt_token_ids": []}, InvalidRequestError, "prompt_token_ids"),
    ("no input", {"prompt": None, "input": []}, InvalidRequestError, "input"),
    ("an empty input", {"prompt": None, "input": ""}, InvalidRequestError, "input"),
    ("an empty string", {"prompt": None, "input": ["a", ""]}, InvalidRequestError, "input"),
    ("too many inputs", {"prompt": None, "input": ["a"] * (rules.MAX_INPUTS + 1)}, TooLargeError, "input"),
    ("an id too long", {"id": "j" * 65}, InvalidRequestError, "id"),
    ("an id with a dot", {"id": "a.b"}, InvalidRequestError, "id"),
    ("an empty session", {"session": ""}, InvalidRequestError, "session"),
    ("a session too long", {"session": "s" * 257}, InvalidRequestError, "session"),
    ("a stop too long", {"stop": "s" * (rules.MAX_STOP_CHARS + 1)}, InvalidRequestError, "stop"),
    ("an empty stop", {"stop": ""}, InvalidRequestError, "stop"),
    ("too many stops", {"stop": ["s"] * (rules.MAX_STOP_STRINGS + 1)}, InvalidRequestError, "stop"),
    ("stop ids", {"stop_token_ids": [1] * (rules.MAX_TOKEN_LISTS + 1)}, TooLargeError, "stop_token_ids"),
    ("allowed ids", {"allowed_token_ids": [1] * (rules.MAX_TOKEN_LISTS + 1)}, TooLargeError, "allowed_token_ids"),
    ("nothing allowed", {"allowed_token_ids": []}, InvalidRequestError, "allowed_token_ids"),
    ("bad words", {"bad_words": ["w"] * (rules.MAX_TOKEN_LISTS + 1)}, TooLargeError, "bad_words"),
    ("an empty bad word", {"bad_words": ["w", ""]}, InvalidRequestError, "bad_words"),
    ("a bad word too long", {"bad_words": ["w" * (rules.MAX_STOP_CHARS + 1)]}, InvalidRequestError, "bad_words"),
    (
        "biases",
        {"logit_bias": {str(n): 0.0 for n in range(rules.MAX_TOKEN_LISTS + 1)}},
        TooLargeError,
        "logit_bias",
    ),
    ("a bias of no token", {"logit_bias": {"": 1.0}}, InvalidRequestError, "logit_bias"),
    ("a bias of eleven digits", {"logit_bias": {"1" * 11: 1.0}}, InvalidRequestError, "logit_bias"),
    ("a bias of +1", {"logit_bias": {"+1": 1.0}}, InvalidRequestError, "logit_bias"),
    ("min beyond max", {"max_tokens": 5, "min_tokens": 6}, InvalidRequestError, "min_tokens"),
    ("min beyond the default", {"min_tokens": DEFAULT_MAX_TOKENS + 1}, InvalidRequestError, "min_tokens"),
    ("metadata", {"metadata": {"k": "v" * (rules.MAX_METADATA_BYTES - 7)}}, TooLargeError, "metadata"),
    ("metadata no JSON can hold", {"metadata": {"k": object()}}, InvalidRequestError, "metadata"),
    ("no answer", {"n": 0}, InvalidRequestError, "n"),
    ("two answers", {"n": 2}, UnsupportedError, "n"),
    ("best of two", {"best_of": 2}, UnsupportedError, "best_of"),
    ("log probabilities", {"logprobs": True}, UnsupportedError, "logprobs"),
    ("some of them", {"top_logprobs": 3}, UnsupportedError, "top_logprobs"),
    ("of the prompt", {"prompt_logprobs": 0}, UnsupportedError, "prompt_logprobs"),
    ("an echo", {"echo": True}, UnsupportedError, "echo"),
    ("a suffix", {"suffix": "b"}, UnsupportedError, "suffix"),
    ("tools", {"tools": [{"type": "function"}]}, UnsupportedError, "tools"),
    ("a choice of tools", {"tool_choice": "auto"}, UnsupportedError, "tool_choice"),
    ("functions", {"functions": [{}]}, UnsupportedError, "functions"),
    ("a function call", {"function_call": {"name": "f"}}, UnsupportedError, "function_call"),
    ("sound", {"modalities": ["text", "audio"]}, UnsupportedError, "modalities"),
    ("a voice", {"audio": {"voice": "alloy"}}, UnsupportedError, "audio"),
    (
        "no schema",
        {"response_format": ResponseFormat(type="json_schema", json_schema={"name": "x"})},
        InvalidRequestError,
        "response_format",
    ),
    (
        "a schema in text",
        {"response_format": ResponseFormat(type="json_schema", json_schema={"schema": "{}"})},
        InvalidRequestError,
        "response_format",
    ),
    ("no structure", {"structured_outputs": StructuredOutputs()}, InvalidRequestError, "structured_outputs"),
    (
        "two structures",
        {"structured_outputs": StructuredOutputs(regex="a", json="{}")},
        InvalidRequestError,
        "structured_outputs",
    ),
    (
        "a choice of nothing among others",
        {"structured_outputs": StructuredOutputs(choice=["a", ""])},
        InvalidRequestError,
        "structured_outputs.choice",
    ),
    (
        "a structure and a format",
        {
            "structured_outputs": StructuredOutputs(regex="a"),
            "response_format": ResponseFormat(type="json_object"),
        },
        InvalidRequestError,
        "structured_outputs",
    ),
    (
        "a schema too large",
        {"structured_outputs": StructuredOutputs(choice=["c" * rules.MAX_SCHEMA_BYTES])},
        TooLargeError,
        "structured_outputs",
    ),
]


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_within_its_bounds_is_taken(what: str) -> None:
    validate(make(**ALLOWED[what]))


@pytest.mark.parametrize(("what", "fields", "error", "field"), REFUSED, ids=[each[0] for each in REFUSED])
def test_what_is_beyond_its_bounds_is_refused_with_its_field(
    what: str, fields: dict[str, Any], error: type[RequestError], field: str
) -> None:
    with pytest.raises(error) as refused:
        validate(make(**fields))
    assert type(refused.value) is error
    assert refused.value.field == field


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", rules._NUMBERS)
def test_no_number_of_a_request_is_infinite_or_none_at_all(name: str, value: float) -> None:
    """A Request made in this process passed no decoder that would have looked at its ranges."""
    with pytest.raises(InvalidRequestError) as refused:
        validate(make(**{name: value}))
    assert refused.value.field == name


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_bias_is_infinite(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="logit_bias: must be a finite number"):
        validate(make(logit_bias={"1": 0.0, "2": value}))


def test_every_field_that_openai_has_and_we_do_not_serve_is_looked_at() -> None:
    told = {name for name in Request.__struct_fields__ if Request.__struct_fields__.index(name) > _last_served()}
    assert told == {"n", *rules._NOT_SERVED}
    assert set(rules._HARMLESS) <= set(rules._NOT_SERVED)


def _last_served() -> int:
    return Request.__struct_fields__.index("on_worker_loss")


def test_max_tokens_has_a_default() -> None:
    assert max_tokens(make()) == DEFAULT_MAX_TOKENS
    assert max_tokens(make(max_tokens=1)) == 1


def test_stop_strings_are_a_tuple_however_they_were_given() -> None:
    assert stop_strings(make()) == ()
    assert stop_strings(make(stop="x")) == ("x",)
    assert stop_strings(make(stop=["x", "y"])) == ("x", "y")


def test_a_structure_is_found_in_either_field() -> None:
    schema = {"type": "object"}
    assert structure_of(make()) is None
    assert structure_of(make(response_format=ResponseFormat(type="text"))) is None
    wanted = ResponseFormat(type="json_object")
    assert structure_of(make(response_format=wanted)) == StructuredOutputs(json_object=True)
    wanted = ResponseFormat(type="json_schema", json_schema={"schema": schema})
    assert structure_of(make(response_format=wanted)) == StructuredOutputs(json=schema)
    own = StructuredOutputs(choice=["a"])
    assert structure_of(make(structured_outputs=own)) is own


def test_the_seed_is_the_requests_own_or_the_jobs_and_the_same_on_every_attempt() -> None:
    assert seed_of(make(seed=-5), JobKey("t", "j")) == -5
    assert seed_of(make(seed=0), JobKey("t", "j")) == 0
    derived = seed_of(make(), JobKey("t", "j"))
    assert derived == seed_of(make(max_tokens=3), JobKey("t", "j")) == 8671361090858038989
    assert 0 <= derived < 2**63
    assert (
        len(
            {
                derived,
                seed_of(make(), JobKey("t", "k")),
                seed_of(make(), JobKey("u", "j")),
                seed_of(make(), JobKey("t.", "j")),
            }
        )
        == 4
    )
