"""The version of the protocol: how it is read, and what of another version is understood."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.client.assembly import Assembly
from mesh.errors import InvalidRequestError, ProtocolError, RefusedError, UnsupportedError, VersionError
from mesh.protocol import codec, headers
from mesh.protocol.codec import Encoding
from mesh.protocol.history import read_history
from mesh.protocol.messages import Delta, LaterEvent, Result
from mesh.protocol.version import (
    HEADER,
    OWN_BLOCK,
    OWN_LINE,
    PROTOCOL,
    UPGRADE,
    ProtocolVersion,
    check_mesh,
    check_request,
    is_understood,
    parse,
    spoken,
)

ROOT = Path(__file__).parents[3]
LATER = json.loads((ROOT / "nats" / "vectors.json").read_text())["later"]
VERSIONS = st.builds(ProtocolVersion, st.integers(0, 9999), st.integers(0, 9999))


@given(VERSIONS)
def test_a_version_is_read_as_it_is_written(version: ProtocolVersion) -> None:
    assert parse(str(version)) == version
    assert spoken(str(version)) == str(version)


@pytest.mark.parametrize(("text", "version"), [("1", (1, 0)), ("1.0", (1, 0)), (" 2.11 ", (2, 11)), ("0", (0, 0))])
def test_forms_of_a_version(text: str, version: tuple[int, int]) -> None:
    assert parse(text) == version


@pytest.mark.parametrize(
    "text", ["", "one", "1.", ".1", "1.0.0", "-1", "01.0", "1.00", "10000.0", "1 .0", "\u0663.\u0661", "v1"]
)
def test_what_is_no_version(text: str) -> None:
    assert parse(text) is None


@given(VERSIONS)
def test_equal_majors_understand_each_other(version: ProtocolVersion) -> None:
    assert is_understood(version) is (version.major == PROTOCOL.major)
    if is_understood(version):
        check_mesh(version)
        check_request(str(version))
        return
    with pytest.raises(VersionError) as refused:
        check_mesh(version)
    helps = UPGRADE if version > PROTOCOL else "mesh init --namespace NAME --apply"
    assert str(version) in str(refused.value)
    assert helps in str(refused.value)
    with pytest.raises(UnsupportedError, match=UPGRADE) as unsupported:
        check_request(str(version))
    assert (unsupported.value.field, unsupported.value.http_status) == (HEADER, 400)


@given(st.text())
def test_whatever_a_header_says_it_is_a_version_or_refused(text: str) -> None:
    version = parse(text)
    if text and (version is None or not is_understood(version)):
        with pytest.raises(RefusedError) as refused:
            check_request(text)
        assert refused.value.field == HEADER
        assert len(str(refused.value)) < 400
    else:
        check_request(text)


def test_a_request_without_a_version_speaks_the_first() -> None:
    check_request("")
    assert spoken("") == "1.0"
    with pytest.raises(InvalidRequestError, match="'garbled' is not of the form"):
        check_request("garbled")


def test_the_header_is_made_once() -> None:
    assert headers.parse(OWN_BLOCK) == {HEADER: str(PROTOCOL)}
    assert headers.parse(headers.block(("a", 1), rest=OWN_LINE)) == {"a": "1", HEADER: str(PROTOCOL)}


def test_this_page_is_of_the_version_that_is_spoken() -> None:
    page = (ROOT / "nats" / "PROTOCOL.md").read_text()
    assert page.startswith(f"# The wire protocol, version {PROTOCOL}\n")


# What a later minor adds.


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("vector", LATER, ids=[vector["name"] for vector in LATER])
def test_a_reader_gets_along_with_what_a_later_speaker_writes(vector: dict[str, Any], encoding: Encoding) -> None:
    bodies = [json.dumps(event).encode() for event in vector["events"]]
    if encoding == "msgpack":
        bodies = [msgspec.msgpack.encode(event) for event in vector["events"]]
    known, later = [], []
    for body in bodies:
        try:
            known.append(codec.decode_event(body))
        except ProtocolError:
            later.append(codec.decode_later(body))
    assert all(isinstance(each, LaterEvent) for each in later)
    assembly = Assembly()
    shown = [each for event in known for each in assembly.take(event)]
    assert "".join(each.text for each in shown if isinstance(each, Delta)) == vector["text"]
    result = shown[-1]
    assert isinstance(result, Result)
    assert (result.status, result.text) == (vector["status"], vector["text"])
    history = read_history(known)
    assert (history.text, history.result) == (vector["text"], result)


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (b'{"type":"progress"}', LaterEvent(type="progress")),
        (
            b'{"type":"progress","id":"j","attempt":2,"index":7,"more":[1]}',
            LaterEvent(type="progress", id="j", attempt=2, index=7),
        ),
        (b'{"type":"delta","id":5}', None),
        (b'{"type":"note","id":"j"}', None),
        (b'{"type":5}', None),
        (b'{"kind":"progress"}', None),
        (b"progress", None),
        (b"", None),
    ],
)
def test_an_event_of_a_later_minor_is_told_from_what_is_none(body: bytes, event: LaterEvent | None) -> None:
    assert codec.decode_later(body) == event
