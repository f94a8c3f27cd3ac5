"""Whatever a program gives: a Request that the worker will take, or a refusal."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.client.requests import build_request
from mesh.errors import RequestError
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Request
from mesh.protocol.validate import validate

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(Request.__struct_fields__) | st.text(max_size=6)


@given(ANYTHING, st.dictionaries(FIELDS, ANYTHING, max_size=4), st.sampled_from(["json", "msgpack"]))
def test_anything_is_a_request_or_refused(prompt: Any, fields: dict[str, Any], encoding: Encoding) -> None:
    try:
        request = build_request(prompt, fields)
    except RequestError:
        return
    # What was taken here is taken by the worker: it decodes to the same and passes the same checks.
    arrived = codec.decode_request(codec.encode(request, encoding), encoding)
    validate(arrived)
    assert arrived.prompt == request.prompt
