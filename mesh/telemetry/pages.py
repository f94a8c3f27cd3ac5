"""The part of HTTP that a scraper and a probe need: one request, one page, then the connection closes. Pure.

Source: RFC 9112, sections 2 and 3.
"""

from dataclasses import dataclass

MOST_HEAD_BYTES = 8192  # request line and headers; even a browser with many cookies sends less
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
    """A response."""

    status: int
    body: bytes
    media_type: str = TEXT


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request line's content."""

    path: str  # without the query
    is_head: bool = False  # the method is HEAD: respond with headers only


def read_head(head: bytes) -> PageRequest | Page:
    """Return the request, or the page that refuses it. The headers are ignored."""
    line = head.split(b"\r\n", 1)[0]
    parts = line.split(b" ")
    if len(parts) != 3 or not line.isascii() or not parts[1].startswith(b"/"):
        return refusal(400, "not an HTTP request")
    method, target, version = parts
    if not version.startswith(b"HTTP/"):
        return refusal(400, "not an HTTP request")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        return refusal(505, "only HTTP/1.1 and HTTP/1.0 are supported")
    if method not in (b"GET", b"HEAD"):
        return refusal(405, "only GET and HEAD are supported")
    return PageRequest(target.split(b"?", 1)[0].decode("ascii"), method == b"HEAD")


def refusal(status: int, text: str) -> Page:
    """Return an error page with a reason."""
    return Page(status, f"{text}\n".encode())


def encode(page: Page, is_head: bool = False) -> bytes:
    """Return the page as an HTTP/1.1 response."""
    allow = "Allow: GET, HEAD\r\n" if page.status == 405 else ""
    head = (
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\n"
        f"Content-Type: {page.media_type}\r\nContent-Length: {len(page.body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else page.body)
