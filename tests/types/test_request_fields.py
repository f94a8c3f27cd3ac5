"""`RequestFields`, by which editors check what a program asks, has the names and types of `Request`, and no others."""

from types import UnionType
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from mesh.client import request_fields
from mesh.client.request_fields import (
    JobFields,
    MessageDict,
    Messages,
    RequestFields,
    ResponseFormatDict,
    StructuredOutputsDict,
)
from mesh.client.requests import build_request
from mesh.protocol.messages import Message, Request, ResponseFormat, StructuredOutputs

# Where a program may also give a plain dict, which arrives as the struct.
WIDER: dict[str, tuple[Any, Any]] = {
    "messages": (list[Message] | None, Messages | None),
    "response_format": (ResponseFormat | None, ResponseFormat | ResponseFormatDict | None),
    "structured_outputs": (StructuredOutputs | None, StructuredOutputs | StructuredOutputsDict | None),
}
TWINS = [(MessageDict, Message), (ResponseFormatDict, ResponseFormat), (StructuredOutputsDict, StructuredOutputs)]


def plain(kind: Any) -> Any:
    """A type without ranges, and without what a TypedDict says of the key."""
    if get_origin(kind) in (Annotated, NotRequired, Required):
        return plain(get_args(kind)[0])
    if arguments := get_args(kind):
        origin = Union if get_origin(kind) is UnionType else get_origin(kind)
        return (origin, tuple(plain(each) for each in arguments))
    return kind


def types_of(kind: type) -> dict[str, Any]:
    return {name: plain(found) for name, found in get_type_hints(kind).items()}


def test_the_fields_are_those_of_a_request_beside_its_prompt() -> None:
    wanted = types_of(Request)
    del wanted["prompt"]  # has a parameter of its own
    for name, (ours, theirs) in WIDER.items():
        assert wanted[name] == plain(ours)
        wanted[name] = plain(theirs)
    assert types_of(RequestFields) == wanted


def test_the_fields_of_an_embedding_are_some_of_them() -> None:
    assert types_of(JobFields).items() < types_of(RequestFields).items()
    assert {"id", "session", "metadata"} <= types_of(JobFields).keys()


@pytest.mark.parametrize(("given", "struct"), TWINS, ids=[struct.__name__ for _, struct in TWINS])
def test_each_dict_is_its_struct(
    given: type[MessageDict] | type[ResponseFormatDict] | type[StructuredOutputsDict],
    struct: type[Message] | type[ResponseFormat] | type[StructuredOutputs],
) -> None:
    assert types_of(given) == types_of(struct)
    needed = {field.name for field in msgspec.structs.fields(struct) if field.required}
    assert getattr(given, "__required_keys__") == needed  # noqa: B009  # mypy knows a dict's type as `type` here


def test_every_dict_of_the_module_is_held_to_something() -> None:
    found = {name for name in vars(request_fields) if name.endswith(("Dict", "Fields")) and name != "TypedDict"}
    assert found == {given.__name__ for given, _ in TWINS} | {"JobFields", "RequestFields"}


def test_dicts_arrive_as_the_structs_they_stand_for() -> None:
    fields: RequestFields = {
        "messages": [{"role": "user", "content": "Hi"}],
        "response_format": {"type": "json_object"},
    }
    request = build_request(None, fields)
    assert request.messages == [Message(role="user", content="Hi")]
    assert request.response_format == ResponseFormat(type="json_object")
    request = build_request("Hi", {"structured_outputs": {"choice": ["a"]}})
    assert request.structured_outputs == StructuredOutputs(choice=["a"])
