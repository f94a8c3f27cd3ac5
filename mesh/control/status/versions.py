"""Compares the versions of protocol and program that the processes of a mesh run. Pure."""

from collections.abc import Sequence

import msgspec

from mesh.protocol.messages import Presence
from mesh.protocol.version import is_understood, parse, spoken

MOST_NAMED = 5  # most processes of one version that are listed by name


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """One process that speaks the protocol."""

    name: str
    kind: str  # worker or door
    protocol: str  # as it reports; "" if it reports none
    version: str  # of the program


def of_workers(workers: Sequence[Presence]) -> list[Speaker]:
    """Converts workers to speakers."""
    return [Speaker(name=each.worker, kind="worker", protocol=each.protocol, version=each.version) for each in workers]


def protocols(speakers: Sequence[Speaker]) -> set[str]:
    """Returns the protocol versions in use."""
    return {spoken(each.protocol) for each in speakers}


def programs(speakers: Sequence[Speaker]) -> set[str]:
    """Returns the program versions in use."""
    return {each.version for each in speakers}


def is_divided(speakers: Sequence[Speaker]) -> bool:
    """Returns whether a process speaks another major version than this program, which is incompatible."""
    found = [parse(text) for text in protocols(speakers)]
    return any(each is None or not is_understood(each) for each in found)


def in_words(speakers: Sequence[Speaker]) -> str:
    """Lists versions and processes: `1.0 (mesh 0.1.0): workers w-1, w-2; 1.1 (mesh 0.2.0): door f-1`."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for each in sorted(speakers, key=lambda each: (each.kind != "worker", each.name)):
        kinds = groups.setdefault((spoken(each.protocol), each.version or "?"), {})
        kinds.setdefault(each.kind, []).append(each.name)
    parts = []
    for (protocol, version), kinds in sorted(groups.items()):
        speaking = ", ".join(f"{kind}{'' if len(names) == 1 else 's'} {_named(names)}" for kind, names in kinds.items())
        parts.append(f"{protocol} (mesh {version}): {speaking}")
    return "; ".join(parts)


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
