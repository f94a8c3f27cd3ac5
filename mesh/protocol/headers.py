"""NATS message headers as bytes, built once and read without a dictionary. Pure.

The hot path sends one header for each token chunk and reads none, so blocks are assembled from pre-encoded parts.
Source: ADR-4 (NATS message headers).
"""

VERSION = b"NATS/1.0\r\n"
END = b"\r\n"

JSON = "application/json"
MSGPACK = "application/msgpack"

_EXPECT = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: "


def block(*pairs: tuple[str, str | int], rest: bytes = b"") -> bytes:
    """A header block of these names and values, in this order.

    `rest` is further lines, each ended by CRLF, already encoded.

    Raises:
        ValueError: a name or a value holds a line break: it would forge another header.
    """
    lines = [VERSION]
    for name, value in pairs:
        text = f"{name}: {value}"
        if "\r" in text or "\n" in text:
            raise ValueError(f"header {name!r} holds a line break")
        lines.append(text.encode() + END)
    lines += (rest, END)
    return b"".join(lines)


def expecting(last: int, rest: bytes = b"") -> bytes:
    """A block that makes the server refuse the publish unless `last` is the subject's last sequence.

    `rest` is further lines, each ended by CRLF, already encoded.
    Source: ADR-26 / JetStream publish headers (`Nats-Expected-Last-Subject-Sequence`).
    """
    return b"%b%d\r\n%b\r\n" % (_EXPECT, last, rest)


def line(name: str, value: str | int) -> bytes:
    """One encoded header line, for `expecting`'s `rest`."""
    return block((name, value))[len(VERSION) : -len(END)]


def parse(raw: bytes) -> dict[str, str]:
    """Header names (as sent) to values; an inline status becomes `Status` and `Description`."""
    if not raw:
        return {}
    first, *rest = raw.split(b"\r\n")
    found: dict[str, str] = {}
    status = first[8:].strip()  # after "NATS/1.0"
    if status:
        code, _, text = status.partition(b" ")
        found["Status"] = code.decode("ascii", "replace")
        if text:
            found["Description"] = text.decode("utf-8", "replace")
    for each in rest:
        name, colon, value = each.partition(b":")
        if colon:
            key = name.strip().decode("ascii", "replace")
            if key not in ("Status", "Description") or not status:
                found[key] = value.strip().decode("utf-8", "replace")
    return found


def status(raw: bytes) -> int:
    """The inline status of a server's answer (404, 503, …), 0 if there is none."""
    if len(raw) >= 12 and raw[8:9] == b" " and raw[9:12].isdigit():
        return int(raw[9:12])
    return 0


def media_type(value: str) -> str:
    """The media type in a `Content-Type`, in lower case and without parameters; "" stays ""."""
    return value.partition(";")[0].strip().lower()
