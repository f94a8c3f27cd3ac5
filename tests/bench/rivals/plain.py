"""The bench engine for programs without an event loop: the same texts at the same pace.

It costs less than the one that the mesh runs (no batch, no task), which is to the good of who uses it.
"""

import time
from collections.abc import Iterator

from tests.bench.engine import INTERVAL_S, PACED, expected

Answer = dict[str, object]  # what a task returns: text, token_ids, entered_s, due_s


def tokens_of(prompt: str, n_tokens: int, due_s: float) -> Iterator[tuple[str, list[int]]]:
    """One token after the other; a paced one not before it is due."""
    is_paced = prompt.startswith(PACED)
    for number, piece in enumerate(_pieces(prompt, n_tokens)):
        if is_paced:
            time.sleep(max(0.0, due_s + number * INTERVAL_S - time.monotonic()))
        yield piece


def due_from(entered_s: float) -> float:
    """When the first token of a job is due that the engine got at `entered_s`."""
    return entered_s + INTERVAL_S


_made: dict[tuple[str, int], list[tuple[str, list[int]]]] = {}


def _pieces(prompt: str, n_tokens: int) -> list[tuple[str, list[int]]]:
    """Each token with the text that it adds; made once, so that making it is not what is measured."""
    if (prompt, n_tokens) not in _made:
        pieces, shown = [], ""
        for count in range(1, n_tokens + 1):
            text, ids = expected(prompt, count)
            pieces.append((text[len(shown) :], [ids[-1]]))
            shown = text
        whole, _ = expected(prompt, n_tokens)
        assert shown == whole, "a longer answer begins with the shorter ones"
        _made[prompt, n_tokens] = pieces
    return _made[prompt, n_tokens]
