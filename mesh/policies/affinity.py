"""Which lane a request prefers, and which worker pulls a lane first. Pure.

Requests that share a session, or the start of their prompt, get one affinity token; the stream maps tokens to
lanes; each lane has an owner among the workers, which finds the shared prefix in its engine's cache. When the
owner is busy or gone, anybody takes the job at once: affinity is a preference, never a wait.
Source: rendezvous hashing, Thaler and Ravishankar, 1998.
"""

import hashlib
from collections.abc import Iterable

from mesh.protocol.messages import Request

PREFIX_CHARS = 256  # about one cache block of 64 tokens: system prompts differ from each other by then
PREFIX_IDS = 64


def affinity_token(request: Request) -> str:
    """The subject token of requests that should meet in one cache: 11 characters of [A-Za-z0-9_-]."""
    digest = hashlib.blake2b(_shared_part(request), digest_size=8).hexdigest()
    return digest[:11]


def owned_lanes(worker: str, workers: Iterable[str], lanes: int) -> list[int]:
    """The lanes `worker` pulls first, when `workers` (itself among them) serve one model; ascending."""
    everyone = sorted({*workers, worker})
    return [lane for lane in range(lanes) if _owner(everyone, lane) == worker]


def _owner(workers: list[str], lane: int) -> str:
    return max(workers, key=lambda each: hashlib.blake2b(f"{each}/{lane}".encode(), digest_size=8).digest())


def _shared_part(request: Request) -> bytes:
    if request.session is not None:
        return b"session\0" + request.session.encode()
    if request.messages is not None:
        first = request.messages[0]
        return f"messages\0{first.role}\0{first.content[:PREFIX_CHARS]}".encode()
    if request.prompt_token_ids is not None:
        return b"ids\0" + repr(request.prompt_token_ids[:PREFIX_IDS]).encode()
    if request.prompt is not None:
        return b"prompt\0" + request.prompt[:PREFIX_CHARS].encode()
    return b"input"
