"""Maps a request to a lane, and each lane to the worker that pulls it first. Pure.

Requests that share a session, or the start of their prompt, get the same affinity token. The stream maps tokens to
lanes. Each lane has one owner among the workers, and its engine's cache holds the shared prefix. When the owner is
busy or gone, another worker takes the job at once: affinity never delays a job.
Source: rendezvous hashing, Thaler and Ravishankar, 1998.
"""

import hashlib
from collections.abc import Iterable

from mesh.protocol.messages import Request

PREFIX_CHARS = 256  # about one cache block of 64 tokens; different system prompts differ within it
PREFIX_IDS = 64  # tokens


def affinity_token(request: Request) -> str:
    """Return the subject token that requests with a common prefix share: 11 characters of [A-Za-z0-9_-]."""
    digest = hashlib.blake2b(_shared_part(request), digest_size=8).hexdigest()
    return digest[:11]


def owned_lanes(worker: str, workers: Iterable[str], lanes: int) -> list[int]:
    """Return the lanes that `worker` pulls first, ascending.

    Args:
        workers: the workers of one model; `worker` is counted even where it is missing.
        lanes: the model's lanes are 0 to `lanes` - 1.
    """
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
