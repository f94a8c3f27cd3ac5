"""The version of the wire protocol: how it is written, and which versions understand each other. Pure.

Two speakers understand each other if their majors are equal; a later minor only adds what an earlier one may skip.
The mesh's version stands in the metadata of its request stream, a peer's in its presence and its service's metadata, a
request's in a header. Read by clients and workers when they connect, and of every request by workers and front doors.
Source: nats/PROTOCOL.md, "Compatibility".
"""

import re
from typing import Final, NamedTuple

from mesh._version import DISTRIBUTION
from mesh.errors import InvalidRequestError, UnsupportedError, VersionError
from mesh.protocol import headers

HEADER: Final = "Mesh-Protocol"
METADATA: Final = "mesh.protocol"  # the key in the request stream's metadata
UPGRADE: Final = f"pip install -U {DISTRIBUTION}"

_FORM = re.compile(r"(0|[1-9]\d{0,3})(?:\.(0|[1-9]\d{0,3}))?", re.ASCII)


class ProtocolVersion(NamedTuple):
    """A version, "major.minor"."""

    major: int
    minor: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL: Final = ProtocolVersion(1, 0)  # what this program speaks
FIRST: Final = ProtocolVersion(1, 0)  # what a request or a peer speaks that names no version
OWN_LINE: Final = headers.line(HEADER, str(PROTOCOL))  # of every request that this program sends
OWN_BLOCK: Final = headers.block((HEADER, str(PROTOCOL)))

_FAMILIAR = frozenset(("", str(PROTOCOL), str(PROTOCOL.major)))  # most requests: nothing to parse


def parse(text: str) -> ProtocolVersion | None:
    """The version in a text, such as "1.0" or "1"; None if it is none."""
    found = _FORM.fullmatch(text.strip())
    return ProtocolVersion(int(found[1]), int(found[2] or 0)) if found is not None else None


def is_understood(theirs: ProtocolVersion) -> bool:
    """Whether this program and a speaker of that version understand each other."""
    return theirs.major == PROTOCOL.major


def check_mesh(mesh: ProtocolVersion) -> None:
    """Refuse a mesh that this program does not understand.

    Raises:
        VersionError: it speaks another major; the message says what helps.
    """
    if not is_understood(mesh):
        raise VersionError(f"this mesh speaks protocol {mesh}, and this program {PROTOCOL}; {help_with(mesh)}")


def help_with(mesh: ProtocolVersion) -> str:
    """What to do about a mesh of another major."""
    if mesh > PROTOCOL:
        return f"upgrade this program: {UPGRADE}"
    return (
        "declare a mesh of this version beside it with `mesh init --namespace NAME --apply`, "
        "and end the old one when it is empty"
    )


def check_request(text: str) -> None:
    """Refuse a request whose header says that it means something else than what is read here.

    Raises:
        UnsupportedError: it speaks another major. InvalidRequestError: the header is no version. Both with the field.
    """
    if text in _FAMILIAR:
        return
    theirs = parse(text)
    if theirs is None:
        raise InvalidRequestError(f"{text[:40]!r} is not of the form 1.0", field=HEADER)
    if not is_understood(theirs):
        where = "where workers and front doors run" if theirs > PROTOCOL else "where the request was made"
        raise UnsupportedError(
            f"the request speaks protocol {theirs}, and this mesh {PROTOCOL}; upgrade {where}: {UPGRADE}", field=HEADER
        )


def spoken(text: str) -> str:
    """How a peer's version is shown: one that names none speaks the first, and what is no version is shown as it is."""
    theirs = parse(text) if text else FIRST
    return str(theirs) if theirs is not None else text[:40]
