"""HTTP as far as a scraper and a probe need it: one request line in, one page out, the connection closed. Pure.

Source: RFC 9112, sections 2 and 3. Used by telemetry/endpoint.
"""

from dataclasses import dataclass

MOST_HEAD_BYTES = 8192  # request line and headers; a browser with many cookies sends less
END_OF_HEAD = b"\r\n\r\n"

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    body: bytes
    media_type: str = TEXT


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a request line asks for."""

    path: str  # without the query
    is_head: bool = False  # only the headers are wanted


def read_head(head: bytes) -> PageRequest | Page:
    """What is asked, or the page that refuses it. Headers are not looked at: none of them matters here."""
    line = head.split(b"\r\n", 1)[0]
    parts = line.split(b" ")
    if len(parts) != 3 or not line.isascii() or not parts[1].startswith(b"/"):
        return refusal(400, "not an HTTP request")
    method, target, version = parts
    if not version.startswith(b"HTTP/"):
        return refusal(400, "not an HTTP request")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        return refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if method not in (b"GET", b"HEAD"):
        return refusal(405, "only GET and HEAD are answered here")
    return PageRequest(target.split(b"?", 1)[0].decode("ascii"), method == b"HEAD")


def refusal(status: int, text: str) -> Page:
    """A page that says why there is none."""
    return Page(status, f"{text}\n".encode())


def encode(page: Page, is_head: bool = False) -> bytes:
    """The page as it goes over the wire."""
    allow = "Allow: GET, HEAD\r\n" if page.status == 405 else ""
    head = (
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\n"
        f"Content-Type: {page.media_type}\r\nContent-Length: {len(page.body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else page.body)
