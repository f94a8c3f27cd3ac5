"""Arguments reach vLLM with the types of its engine core, and stop strings are found across any cut."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.engines.vllm.params import (
    StopScan,
    check_limits,
    check_prompt,
    checked_input,
    finish_of,
    is_continuable,
    sampling_arguments,
    stop_ids_of,
)
from mesh.engines.vllm.start import parse_engine_args
from mesh.errors import ConfigError, InvalidRequestError, RequestError, TooLargeError
from mesh.protocol.messages import Message, Request, ResponseFormat, StructuredOutputs

# Field by field what vLLM's SamplingParams declares; a bool is no int, and an int no float.
WIRE_TYPES: dict[str, Any] = {
    "max_tokens": int,
    "min_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "seed": int,
    "stop": [str],
    "stop_token_ids": [int],
    "ignore_eos": bool,
    "presence_penalty": float,
    "frequency_penalty": float,
    "repetition_penalty": float,
    "logit_bias": {int: float},
    "allowed_token_ids": [int],
    "bad_words": [str],
    "include_stop_str_in_output": bool,
    "skip_special_tokens": bool,
    "structured_outputs": dict,
}

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(-1, 9), st.booleans(), st.floats(), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.one_of(st.sampled_from(["5", "x"]), st.integers()), st.floats() | st.text(), max_size=2),
    st.just(object()),
)


def has_type(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return type(value) is list and all(type(item) is wanted[0] for item in value)
    if isinstance(wanted, dict):
        ((key_type, value_type),) = wanted.items()
        return type(value) is dict and all(
            type(key) is key_type and type(item) is value_type for key, item in value.items()
        )
    return type(value) is wanted


@settings(max_examples=4 * settings().max_examples)
@given(
    st.dictionaries(st.sampled_from(sorted({*WIRE_TYPES, "response_format"} - {"seed"})), anything, max_size=4),
    anything,
)
def test_no_wrong_type_reaches_the_engine(fields: dict[str, Any], seed: Any) -> None:
    try:
        arguments = sampling_arguments(Request(prompt="x", **fields), seed)
    except RequestError:
        return
    for name, value in arguments.items():
        assert has_type(value, WIRE_TYPES[name]), (name, value)
    assert -(2**63) <= arguments.get("seed", 0) < 2**63


@given(st.one_of(anything, st.lists(st.one_of(st.integers(), st.booleans()), max_size=3)))
def test_no_input_of_a_wrong_type_reaches_the_tokenizer(value: Any) -> None:
    for field in ("prompt", "messages", "prompt_token_ids", "input"):
        if value is None:
            continue
        try:
            found = checked_input(Request(**{field: value}))
        except RequestError:
            continue
        assert type(found) is str if field == "prompt" else type(found) is list
        if field == "prompt_token_ids":
            assert all(type(item) is int and item >= 0 for item in found)
        if field == "input":
            assert all(type(item) is str for item in found)


def test_every_sampling_field_is_passed_on() -> None:
    request = Request(
        prompt="x",
        max_tokens=50,
        min_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        stop="a",
        stop_token_ids=[1],
        ignore_eos=True,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"7": 3},
        allowed_token_ids=[1, 2],
        bad_words=["no"],
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        structured_outputs=StructuredOutputs(regex="a+"),
    )
    assert sampling_arguments(request, 9, n_before=10) == {
        "max_tokens": 40,
        "min_tokens": 0,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.1,
        "seed": 9,
        "stop": ["a"],
        "stop_token_ids": [1],
        "ignore_eos": True,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "repetition_penalty": 1.5,
        "logit_bias": {7: 3.0},
        "allowed_token_ids": [1, 2],
        "bad_words": ["no"],
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "structured_outputs": {"regex": "a+"},
    }


def test_defaults_are_those_of_the_protocol() -> None:
    arguments = sampling_arguments(Request(prompt="x"), -1)
    assert arguments["max_tokens"] == 256
    assert arguments["temperature"] == 1.0
    assert arguments["seed"] == 2**63 - 1  # vLLM would take -1 for "draw a new one every time"
    assert "seed" not in sampling_arguments(Request(prompt="x", temperature=0), 5)
    schema = {"type": "object"}
    wanted = ResponseFormat(type="json_schema", json_schema={"name": "n", "schema": schema})
    found = sampling_arguments(Request(prompt="x", response_format=wanted), 1)
    assert found["structured_outputs"] == {"json": schema}


def test_limits_of_the_model_are_held_with_their_field() -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"max_tokens": 101}, "max_tokens"),
        ({"stop_token_ids": [0, 50]}, "stop_token_ids"),
        ({"allowed_token_ids": [50]}, "allowed_token_ids"),
        ({"logit_bias": {"50": 1.0}}, "logit_bias"),
    )
    for fields, field in cases:
        with pytest.raises(InvalidRequestError) as caught:
            check_limits(Request(prompt="x", **fields), vocab_size=50, max_model_len=100)
        assert caught.value.field == field
    check_limits(Request(prompt="x", max_tokens=100, stop_token_ids=[49]), vocab_size=50, max_model_len=100)


def test_a_prompt_must_leave_room_for_output() -> None:
    limits: dict[str, Any] = {"vocab_size": 50, "max_model_len": 10, "field": "prompt"}
    check_prompt([1] * 9, n_output=1, **limits)
    check_prompt([1] * 10, n_output=0, **limits)
    for ids, n_output, kind in (
        ([1] * 10, 1, TooLargeError),
        ([1] * 11, 0, TooLargeError),
        ([], 1, InvalidRequestError),
        ([50], 1, InvalidRequestError),
    ):
        with pytest.raises(kind) as caught:
            check_prompt(ids, n_output=n_output, **limits)
        assert caught.value.field == "prompt"


def test_only_exact_continuations_are_allowed() -> None:
    assert is_continuable(Request(prompt="x", temperature=0, repetition_penalty=1.2, stop="a", min_tokens=3))
    known: dict[str, Any] = {"prompt": "x", "temperature": 0}
    refused: tuple[dict[str, Any], ...] = (
        {"temperature": None},
        {"temperature": 0.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"bad_words": ["a"]},
        {"structured_outputs": StructuredOutputs(choice=["a"])},
        {"response_format": ResponseFormat(type="json_object")},
    )
    for fields in refused:
        assert not is_continuable(Request(**known | fields))


def test_the_end_of_an_answer_is_told_from_its_last_token() -> None:
    request = Request(prompt="x", max_tokens=3, stop_token_ids=[8])
    stop_ids = stop_ids_of(request, {0})
    assert finish_of(request, [1, 2], stop_ids) is None
    assert finish_of(request, [1, 0], stop_ids) == "stop"
    assert finish_of(request, [8], stop_ids) == "stop"
    assert finish_of(request, [1, 2, 8], stop_ids) == "stop"
    assert finish_of(request, [1, 2, 3], stop_ids) == "length"
    endless = Request(prompt="x", ignore_eos=True, stop_token_ids=[8])
    assert stop_ids_of(endless, {0}) == {8}


def test_messages_become_plain_turns() -> None:
    request = Request(messages=[Message(role="user", content="hi")])
    assert checked_input(request) == [{"role": "user", "content": "hi"}]
    assert checked_input(Request(input="a")) == ["a"]


pieces = st.lists(st.text("abc", max_size=3), max_size=12)
stops = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3)


def scanned(scan: StopScan, tokens: list[str]) -> tuple[list[str], bool]:
    """Return the text that each token showed, and whether a stop string ended it."""
    shown = []
    for piece in tokens:
        is_stopped = scan.add(piece)
        shown.append(scan.take(is_finished=is_stopped))
        if is_stopped:
            return shown, True
    return shown, False


@given(pieces, stops, st.booleans(), st.integers(0, 4))
def test_text_ends_at_the_first_stop_string_and_none_of_it_is_shown_early(
    tokens: list[str], stop_strings: list[str], keeps_stop: bool, min_tokens: int
) -> None:
    scan = StopScan(tuple(stop_strings), keeps_stop, min_tokens)
    shown, is_stopped = scanned(scan, tokens)
    text = "".join(shown) + ("" if is_stopped else scan.take(is_finished=True))
    whole = "".join(tokens)
    assert whole.startswith(text)
    if not is_stopped:
        assert text == whole
    if min_tokens == 0:
        found = [whole.index(stop) + len(stop) for stop in stop_strings if stop in whole]
        assert is_stopped == bool(found)
        if found and keeps_stop:
            assert len(text) == min(found)
        if found and not keeps_stop:
            assert whole[len(text) :].startswith(tuple(stop_strings))
            assert any(len(text) + len(stop) == min(found) for stop in stop_strings)


@given(pieces, stops, st.booleans(), st.integers(0, 4), st.data())
def test_a_scan_taken_over_at_any_token_ends_alike(
    tokens: list[str], stop_strings: list[str], keeps_stop: bool, min_tokens: int, data: st.DataObject
) -> None:
    def new() -> StopScan:
        return StopScan(tuple(stop_strings), keeps_stop, min_tokens)

    unbroken = new()
    shown, is_stopped = scanned(unbroken, tokens)
    cut = data.draw(st.integers(0, max(0, len(shown) - 1)))
    first = "".join(shown[:cut])
    second = new()
    for piece in tokens[:cut]:
        assert not second.add(piece)
    second.n_shown = len(first)
    rest, is_stopped_too = scanned(second, tokens[cut:])
    assert is_stopped_too == is_stopped
    assert rest == shown[cut:]
    assert second.take(is_finished=True) == unbroken.take(is_finished=True)


def test_engine_arguments_are_typed_by_json() -> None:
    pairs = ["max-num-seqs=64", "dtype=float16", "enforce_eager=true", 'hf_overrides={"a": 1}', "revision=", "x=a=b"]
    assert parse_engine_args(pairs) == {
        "max_num_seqs": 64,
        "dtype": "float16",
        "enforce_eager": True,
        "hf_overrides": {"a": 1},
        "revision": "",
        "x": "a=b",
    }
    for wrong, key in (("dtype", "dtype"), ("=3", "=3"), ("a b=3", "a b")):
        with pytest.raises(ConfigError) as caught:
            parse_engine_args([wrong])
        assert caught.value.key == key
    with pytest.raises(ConfigError, match="twice"):
        parse_engine_args(["max-num-seqs=1", "max_num_seqs=2"])


def test_the_engine_module_imports_neither_vllm_nor_torch() -> None:
    code = "import mesh.engines.vllm.engine, sys; print({'vllm', 'torch', 'transformers'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
