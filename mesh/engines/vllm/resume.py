"""Goes on with an answer that another worker began, so that the whole is what one worker would have made.

Pure but for the tokenizer. An unbroken answer is decoded by vLLM itself; here its detokenizer is repeated
over the earlier tokens, to find where to cut and what text is still owed.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.engines.vllm.params import StopScan, finish_of, is_continuable
from mesh.errors import EngineFailedError
from mesh.protocol.messages import Request

# How a tokenizer's decoder shows bytes that are not a whole character yet.
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Decoder:
    """The tokenizer's Rust core, which vLLM's own incremental detokenizer is a shell of."""

    core: Any  # tokenizers.Tokenizer
    anchor: tuple[int, ...]  # ordinary text, to decode behind where the prompt's ids are not known

    @classmethod
    def of(cls, tokenizer: Any) -> "Decoder | None":
        """The decoder of a tokenizer as vLLM loads it; None: vLLM decodes this one in another way."""
        core: Any = getattr(tokenizer, "_tokenizer", None)
        if type(core).__module__.partition(".")[0] != "tokenizers":
            return None
        return cls(core, tuple(core.encode("a", add_special_tokens=False).ids))

    def stepper(self, context: Sequence[int], *, skips_special: bool) -> Callable[[int], str]:
        """A function from the next output token to the text it newly shows, behind the ids in `context`."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(ids=list(context or self.anchor), skip_special_tokens=skips_special)
        return functools.partial(_step, stream, self.core)

    def is_whole(self, context: Sequence[int], token_ids: Sequence[int], *, skips_special: bool) -> bool:
        """Whether the text ends with a whole character; elsewhere vLLM would show the prompt again."""
        ids = [*(context or self.anchor), *token_ids]
        text: str = self.core.decode(ids, skip_special_tokens=skips_special)
        return not text.endswith(_INCOMPLETE)


@dataclass(slots=True)
class ResumeTail:
    """The rest of an answer under stop strings: vLLM makes token ids, this makes the text and the end."""

    scan: StopScan
    step: Callable[[int], str]

    def feed(self, token_ids: Sequence[int], finish: str | None) -> tuple[str, Sequence[int], str | None]:
        """New text, the ids that belong to the answer, and why it ended, if it did."""
        n_silent = 1 if finish == "stop" and not self.scan.keeps_stop else 0  # the stop id shows nothing
        for index, token_id in enumerate(token_ids):
            piece = "" if index >= len(token_ids) - n_silent else self.step(token_id)
            if self.scan.add(piece):
                return self.scan.take(is_finished=True), token_ids[: index + 1], "stop"
        return self.scan.take(is_finished=finish is not None), token_ids, finish


def resume_index(
    request: Request, token_ids: Sequence[int], text: str, decoder: Decoder | None, stop_ids: Collection[int]
) -> int:
    """How many earlier tokens a continuation can stand on and be exact; 0: none, start again."""
    if not token_ids or decoder is None or not is_continuable(request):
        return 0
    # The prompt's ids, if they are at hand: only behind them can the answer open with half a character.
    context, skips_special = request.prompt_token_ids or (), request.skip_special_tokens
    tail = ResumeTail(StopScan.of(request), decoder.stepper(context, skips_special=skips_special))
    finish = finish_of(request, token_ids, stop_ids)
    lengths = []  # of the text after each token
    try:
        for index, token_id in enumerate(token_ids, 1):
            is_last = index == len(token_ids)
            if tail.feed([token_id], finish if is_last else None)[2] is not None:
                return index if tail.scan.text.startswith(text) else 0
            lengths.append(len(tail.scan.text))
    except EngineFailedError:
        return 0
    owed = len(tail.scan.text) - len(text)
    if not tail.scan.text.startswith(text) or owed > tail.scan.held_chars:
        return 0
    for index in range(len(token_ids), 0, -1):
        if lengths[index - 1] != lengths[-1]:
            return 0
        if decoder.is_whole(context, token_ids[:index], skips_special=skips_special):
            return index
    return 0


def tail_of(
    request: Request,
    decoder: Decoder,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    text: str,
    finish: str | None,
) -> tuple[ResumeTail, str, str | None]:
    """The tail behind `token_ids`, which have shown `text`; and, if they end the answer, the rest and why.

    Raises:
        EngineFailedError: these tokens cannot have shown this text.
    """
    step = decoder.stepper(prompt_ids, skips_special=request.skip_special_tokens)
    tail = ResumeTail(StopScan.of(request), step)
    _, _, finish = tail.feed(token_ids, finish)
    if not tail.scan.text.startswith(text):
        raise EngineFailedError("the answer so far is not what its tokens show")
    tail.scan.n_shown = len(text)
    return tail, tail.scan.take(is_finished=True) if finish else "", finish


def _step(stream: Any, core: Any, token_id: int) -> str:
    try:
        return stream.step(core, token_id) or ""
    except Exception as error:  # the Rust core raises plain Exception, on output that is not valid UTF-8
        raise EngineFailedError(f"the tokenizer cannot decode the answer so far: {error}") from error
