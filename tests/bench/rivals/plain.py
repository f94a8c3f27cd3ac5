"""The bench engine for programs without an event loop: the same texts at the same pace.

It costs less than the one that the mesh runs (no batch, no task), which is to the good of who uses it.
"""

import time
from collections.abc import Iterator

from tests.bench.engine import INTERVAL_S, PACED, chunks_of

Answer = dict[str, object]  # what a task returns: text, token_ids, entered_s, due_s


def tokens_of(prompt: str, n_tokens: int, due_s: float) -> Iterator[tuple[str, list[int]]]:
    """One token after the other; a paced one not before it is due."""
    is_paced = prompt.startswith(PACED)
    for number, chunk in enumerate(chunks_of(prompt, n_tokens)):
        if is_paced:
            time.sleep(max(0.0, due_s + number * INTERVAL_S - time.monotonic()))
        yield chunk.text, list(chunk.token_ids)


def due_from(entered_s: float) -> float:
    """When the first token of a job is due that the engine got at `entered_s`."""
    return entered_s + INTERVAL_S
