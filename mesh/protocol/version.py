"""The version of the wire protocol: its form, and the compatibility of versions. Pure.

Two processes understand each other if their major versions are equal. A later minor adds only parts that an earlier
one may skip. The mesh's version is in the metadata of its request stream. A peer's is in its presence and its
service's metadata, and a request's is in a header.
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


PROTOCOL: Final = ProtocolVersion(1, 0)  # the version of this program
FIRST: Final = ProtocolVersion(1, 0)  # the version of a request or a peer that names none
OWN_LINE: Final = headers.line(HEADER, str(PROTOCOL))  # of every request that this program sends
OWN_BLOCK: Final = headers.block((HEADER, str(PROTOCOL)))

_FAMILIAR = frozenset(("", str(PROTOCOL), str(PROTOCOL.major)))  # most requests: nothing to parse


def parse(text: str) -> ProtocolVersion | None:
    """The version in a text such as "1.0" or "1"; None if the text has another form."""
    found = _FORM.fullmatch(text.strip())
    return ProtocolVersion(int(found[1]), int(found[2] or 0)) if found is not None else None


def is_understood(theirs: ProtocolVersion) -> bool:
    """Whether this program understands a process of that version."""
    return theirs.major == PROTOCOL.major


def check_mesh(mesh: ProtocolVersion) -> None:
    """Refuse a mesh that this program does not understand.

    Raises:
        VersionError: it speaks another major; the message names the remedy.
    """
    if not is_understood(mesh):
        raise VersionError(f"this mesh speaks protocol {mesh}, and this program {PROTOCOL}; {help_with(mesh)}")


def help_with(mesh: ProtocolVersion) -> str:
    """The remedy for a mesh of another major version."""
    if mesh > PROTOCOL:
        return f"upgrade this program: {UPGRADE}"
    return (
        "declare a mesh of this version beside it with `mesh init --namespace NAME --apply`, "
        "and end the old one when it is empty"
    )


def check_request(text: str) -> None:
    """Refuse a request whose version header this program does not understand.

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
    """A peer's version for display: the first one if the peer names none; a malformed one as it is, clipped."""
    theirs = parse(text) if text else FIRST
    return str(theirs) if theirs is not None else text[:40]
