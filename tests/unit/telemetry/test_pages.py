"""Requests to the telemetry port are parsed, and pages are encoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.telemetry.pages import Page, PageRequest, encode, read_head


@pytest.mark.parametrize(
    ("head", "asked"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", PageRequest("/metrics")),
        (b"GET /readyz?verbose=1 HTTP/1.0\r\n\r\n", PageRequest("/readyz")),
        (b"HEAD /livez HTTP/1.1\r\n\r\n", PageRequest("/livez", is_head=True)),
    ],
)
def test_what_a_request_line_asks_for(head: bytes, asked: PageRequest) -> None:
    assert read_head(head) == asked


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics SMTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/2\r\n\r\n", 505),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\n\r\n", 405),
    ],
)
def test_what_is_no_request_for_a_page_is_refused(head: bytes, status: int) -> None:
    page = read_head(head)
    assert isinstance(page, Page)
    assert page.status == status


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_refusal(head: bytes) -> None:
    answer = read_head(head)
    if isinstance(answer, Page):
        assert encode(answer).startswith(b"HTTP/1.1 ")


def test_a_page_goes_out_with_its_length_and_closes_the_connection() -> None:
    head, _, body = encode(Page(200, b"text")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 4" in head
    assert b"Connection: close" in head
    assert body == b"text"


def test_head_gets_the_headers_alone() -> None:
    assert encode(Page(200, b"text"), is_head=True).endswith(b"\r\n\r\n")
