"""The simulator's output text, and how much of it may be shown. Pure.

Token i of an output depends on the prompt's tokens, the seed and i alone. So an attempt that starts at any token
writes the same text as an unbroken one. An output consists of sentences of eight tokens. Each token id has one fixed
text, `piece(token_id)`, and the output is these texts, joined. One piece is empty: the first half of an emoji such as
"🌊" shows nothing, and its second half shows it whole. A real tokenizer splits the bytes of such a character the same
way.

Stop strings work as in vLLM: text that could still become one is held back.

Source: vllm/v1/engine/detokenizer.py (IncrementalDetokenizer.update, check_stop_strings), vLLM 0.28.
"""

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

CHARS_PER_TOKEN = 4  # of a prompt: near English under a real tokenizer

_FIRST_HALF = ""
_WORDS = {
    "d": "the one this every that another",
    "a": "quiet old small green patient early distant gentle narrow golden silver open bright warm wide "
    "still pale hidden simple steady wooden hollow northern late",
    "n": "river heron lantern garden harbour window orchard fox bridge meadow letter sparrow mountain boat "
    "mill road candle willow field shore valley kettle clock tower stone forest ferry island child baker "
    "sailor painter gate stream cloud train village pond owl moon",
    "v": "turns rests waits wanders shines listens drifts returns leans sleeps sings moves travels stands "
    "lingers grows bends glows settles stays floats calls climbs vanishes",
    "p": "under beside near beyond behind above past around below toward over against",
    "r": "slowly softly again today alone gladly often together quietly once",
    "k": "then and yet",
    "t": "🌊 🌿 🌙 🐟 🍎 🔔",
}
_PIECES_OF = {slot: tuple(f" {word}" for word in words.split()) for slot, words in _WORDS.items()}
_PIECES_OF |= {
    "D": ("The", "One", "This", "Every", "That", "Another"),
    "h": (_FIRST_HALF,),
    ",": (",",),
    "e": (". ", ". ", ". ", "! ", "… ", ".\n\n"),  # the space is here, because no output begins with one
}
_SENTENCES = ("Danvpdne", "Dnvpdane", "Dnrvpdne", "Dnv,kvre", "Danvrhte")  # slots; h is always followed by t
_SENTENCE_TOKENS = 8

PIECES = tuple(dict.fromkeys(piece for pieces in _PIECES_OF.values() for piece in pieces))
_INDEX = {piece: index for index, piece in enumerate(PIECES)}
_CHOICES = {slot: tuple(_INDEX[piece] for piece in pieces) for slot, pieces in _PIECES_OF.items()}
_PLANS = tuple(tuple(_CHOICES[slot] for slot in sentence) for sentence in _SENTENCES)


def piece(token_id: int) -> str:
    """Return the text of one token. Many ids share a piece, so that ids are as long on the wire as a real model's."""
    return PIECES[token_id % len(PIECES)]


def tokenize(text: str, vocabulary_tokens: int) -> list[int]:
    """Return simulated token ids of a prompt, one for every CHARS_PER_TOKEN characters."""
    cuts = range(0, len(text), CHARS_PER_TOKEN)
    parts = (text[at : at + CHARS_PER_TOKEN].encode("utf-8", "surrogatepass") for at in cuts)
    return [zlib.crc32(part) % vocabulary_tokens for part in parts]


def output_key(prompt_ids: Sequence[int], seed: int | None) -> bytes:
    """Return 16 bytes that determine the output. seed None: temperature 0, where the seed has no effect."""
    state = hashlib.blake2b(struct.pack(f"<{len(prompt_ids)}I", *prompt_ids), digest_size=16)
    if seed is not None:
        state.update(seed.to_bytes(8, "little", signed=True))
    return state.digest()


def vector(text: str, dim: int) -> list[float]:
    """Return a vector of length one that depends on `text` alone; dim >= 1 floats."""
    raw = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * dim)
    # The half keeps each component, and so the length, from being 0.
    numbers = [number + 0.5 for number in struct.unpack(f"<{dim}i", raw)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


class TokenSource:
    """The tokens of one output, by index."""

    __slots__ = ("_copies", "_ids", "_key", "_sentence")

    def __init__(self, key: bytes, vocabulary_tokens: int) -> None:
        self._key = key
        self._copies = vocabulary_tokens // len(PIECES)  # ids that share a piece
        self._sentence = -1
        self._ids: list[int] = []

    def tokens(self, start: int, stop: int) -> list[int]:
        """Return the ids of the tokens start ≤ i < stop."""
        found: list[int] = []
        while start < stop:
            sentence, slot = divmod(start, _SENTENCE_TOKENS)
            if sentence != self._sentence:
                self._sentence, self._ids = sentence, self._write(sentence)
            end = min(_SENTENCE_TOKENS, slot + stop - start)
            found += self._ids[slot:end]
            start += end - slot
        return found

    def _write(self, sentence: int) -> list[int]:
        draw = hashlib.blake2b(sentence.to_bytes(8, "little"), key=self._key, digest_size=32).digest()
        plan = _PLANS[draw[0] % len(_PLANS)]
        return [
            choices[draw[1 + slot] % len(choices)]
            + len(PIECES) * (int.from_bytes(draw[9 + 2 * slot : 11 + 2 * slot], "little") % self._copies)
            for slot, choices in enumerate(plan)
        ]


class StopScreen:
    """Passes text on, and holds back any that is or may become a stop string."""

    __slots__ = ("_held_chars", "_hold_chars", "_includes", "_keep_chars", "_stops", "_tail", "is_stopped")

    def __init__(self, stops: tuple[str, ...], *, includes_stop: bool) -> None:
        self._stops = stops
        self._includes = includes_stop
        self._keep_chars = max(map(len, stops), default=1) - 1  # a stop string may begin in these
        self._hold_chars = 0 if includes_stop else self._keep_chars
        self._tail = ""
        self._held_chars = 0  # characters at the end of _tail that are held back
        self.is_stopped = False

    def add(self, text: str, *, may_stop: bool) -> str:
        """Take `text` and return the text that may be shown now. Only stop strings that end in `text` count."""
        first = len(self._tail) - self._held_chars
        whole = self._tail + text
        if may_stop and text:
            stop = self._find(whole, len(self._tail))
            if stop is not None:
                self.is_stopped, self._held_chars = True, 0
                return whole[first : stop[1] if self._includes else stop[0]]
        shown_to = max(first, len(whole) - self._hold_chars)
        self._held_chars = len(whole) - shown_to
        self._tail = whole[max(0, len(whole) - self._keep_chars) :] if self._keep_chars else ""
        return whole[first:shown_to]

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._tail[len(self._tail) - self._held_chars :]

    def flush(self) -> str:
        """Return the text that is held back, at the end of an output that no stop string ended."""
        held = self.held
        self._held_chars = 0
        return held

    def _find(self, whole: str, old_chars: int) -> tuple[int, int] | None:
        """Return begin and end of the stop string that ends first; among equals, the first listed."""
        best: tuple[int, int] | None = None
        for stop in self._stops:
            begin = whole.find(stop, max(0, old_chars + 1 - len(stop)))
            if begin >= 0 and (best is None or begin + len(stop) < best[1]):
                best = (begin, begin + len(stop))
        return best


@dataclass(frozen=True, slots=True)
class Plan:
    """All values that determine an output."""

    key: bytes  # 16 bytes, from output_key
    vocabulary_tokens: int  # >= len(PIECES)
    most_tokens: int  # n >= 1; the output ends here with "length"
    min_tokens: int = 0  # no stop counts before so many tokens
    stops: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    includes_stop: bool = False


class Writer:
    """Writes one output, from its first token or from the end of an earlier attempt."""

    __slots__ = ("_carry", "_plan", "_screen", "_source", "count", "finish_reason")

    def __init__(self, plan: Plan, token_ids: Sequence[int] = (), text: str = "") -> None:
        """Continue after `token_ids`, of which `text` was shown; a stop among them ends the output.

        Raises:
            ValueError: these tokens cannot have shown this text.
        """
        self._plan = plan
        self._source = TokenSource(plan.key, plan.vocabulary_tokens)
        self._screen = StopScreen(plan.stops, includes_stop=plan.includes_stop)
        self.count = 0  # output tokens so far
        self.finish_reason: str | None = None
        whole = self._append_all(token_ids[: plan.most_tokens])
        if self.finish_reason is not None:
            whole += self._screen.flush()
        if not whole.startswith(text):
            raise ValueError(f"{len(token_ids)} tokens cannot have shown these {len(text)} characters")
        self._carry = whole[len(text) :]  # made by the earlier attempt, but never shown

    def write(self, most_tokens: int) -> tuple[str, list[int]]:
        """Write up to `most_tokens` more; return the newly shown text and the new ids. None follow the end."""
        stop = min(self.count + most_tokens, self._plan.most_tokens)
        fresh = self._source.tokens(self.count, stop) if self.finish_reason is None else []
        before = self.count
        text = self._carry + self._append_all(fresh)
        self._carry = ""
        if self.finish_reason is not None:
            text += self._screen.flush()
        return text, fresh[: self.count - before]

    def _append_all(self, token_ids: Sequence[int]) -> str:
        plan = self._plan
        if plan.stops or plan.stop_token_ids:
            text = ""
            for token_id in token_ids:
                if self.finish_reason is None:
                    text += self._append(token_id)
        else:
            text = "".join([PIECES[token_id % len(PIECES)] for token_id in token_ids])
            self.count += len(token_ids)
        if self.finish_reason is None and self.count >= plan.most_tokens:
            self.finish_reason = "length"
        return text

    def _append(self, token_id: int) -> str:
        self.count += 1
        may_stop = self.count > self._plan.min_tokens
        is_stop = may_stop and token_id in self._plan.stop_token_ids
        text = "" if is_stop and not self._plan.includes_stop else piece(token_id)
        shown = self._screen.add(text, may_stop=may_stop)
        if is_stop or self._screen.is_stopped:
            self.finish_reason = "stop"
        return shown
