"""Header blocks: what goes in comes out, and nothing else."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.protocol import headers

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True).filter(
    lambda n: n not in ("Status", "Description")
)
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(str.strip)


@given(st.dictionaries(NAMES, VALUES | st.integers(), max_size=6))
def test_a_block_is_read_back_as_it_was_made(fields: dict[str, Any]) -> None:
    assert headers.parse(headers.block(*fields.items())) == {name: str(value) for name, value in fields.items()}


@given(st.text(max_size=30), st.text(max_size=30))
def test_one_pair_is_one_line_or_refused(name: str, value: str) -> None:
    try:
        raw = headers.block((name, value))
    except ValueError:
        return
    assert raw.count(b"\r\n") == 3
    assert raw.count(b"\n") == raw.count(b"\r") == 3
    assert len(headers.parse(raw)) <= 1


@given(st.integers(0, 2**63), st.dictionaries(NAMES, VALUES, max_size=3))
def test_a_fence_reads_back_with_its_sequence(last: int, fields: dict[str, Any]) -> None:
    rest = b"".join(headers.line(name, value) for name, value in fields.items())
    found = headers.parse(headers.expecting(last, rest))
    assert found == {"Nats-Expected-Last-Subject-Sequence": str(last)} | fields


@given(st.binary(max_size=80))
def test_any_bytes_are_read(raw: bytes) -> None:
    assert isinstance(headers.parse(raw), dict)
    assert 0 <= headers.status(raw) <= 999


@given(st.integers(100, 999), VALUES)
def test_the_status_of_the_first_line_is_found(code: int, text: str) -> None:
    raw = f"NATS/1.0 {code} {text}".encode() + b"\r\nStatus: 1\r\n\r\n"
    assert headers.status(raw) == code
    assert headers.parse(raw)["Status"] == str(code)
