"""Pure: which beginnings of prompts the simulator remembers, in blocks, as vLLM's prefix cache does."""

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16  # vLLM's default block size


class PrefixCache:
    """Blocks of prompt tokens, each known with all before it; the longest unused is forgotten first."""

    __slots__ = ("_blocks", "_most_blocks")

    def __init__(self, most_tokens: int) -> None:
        self._most_blocks = most_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()  # by the hash of the prefix it ends

    @property
    def tokens(self) -> int:
        """Tokens remembered."""
        return len(self._blocks) * BLOCK_TOKENS

    def enter(self, token_ids: Sequence[int]) -> int:
        """Remember a prompt; return how many of its first tokens were known.

        Never all of them: the last token is always computed, as its output is the first new token.
        """
        if not self._most_blocks:
            return 0
        found, is_known, prefix = 0, True, 0
        for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            # Hashes of ints do not vary between runs; a collision costs a wrong delay and nothing else.
            prefix = hash((prefix, *token_ids[start : start + BLOCK_TOKENS]))
            is_known = is_known and prefix in self._blocks
            found += is_known and start + BLOCK_TOKENS < len(token_ids)
            self._blocks[prefix] = None
            self._blocks.move_to_end(prefix)
        while len(self._blocks) > self._most_blocks:
            self._blocks.popitem(last=False)
        return found * BLOCK_TOKENS
