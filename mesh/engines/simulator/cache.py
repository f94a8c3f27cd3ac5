"""The simulator's prefix cache: prompt tokens in blocks, as in vLLM. Pure."""

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16  # vLLM's default block size


class PrefixCache:
    """Blocks of prompt tokens, each identified with all blocks before it; the least recently used is evicted first."""

    __slots__ = ("_blocks", "_most_blocks")

    def __init__(self, most_tokens: int) -> None:
        self._most_blocks = most_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()  # key: the hash of the prefix that the block ends

    @property
    def tokens(self) -> int:
        """Tokens in the cache."""
        return len(self._blocks) * BLOCK_TOKENS

    def enter(self, token_ids: Sequence[int]) -> int:
        """Store a prompt; return how many of its first tokens were cached.

        The last token is never counted: an engine always computes it, because its output is the first new token.
        """
        if not self._most_blocks:
            return 0
        found, is_known, prefix = 0, True, 0
        for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            # Hashes of ints are equal in all runs; a collision only makes a delay wrong.
            prefix = hash((prefix, *token_ids[start : start + BLOCK_TOKENS]))
            is_known = is_known and prefix in self._blocks
            found += is_known and start + BLOCK_TOKENS < len(token_ids)
            self._blocks[prefix] = None
            self._blocks.move_to_end(prefix)
        while len(self._blocks) > self._most_blocks:
            self._blocks.popitem(last=False)
        return found * BLOCK_TOKENS
