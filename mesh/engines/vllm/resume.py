"""Continues an answer that another worker began; the whole equals an unbroken answer.

Pure but for the tokenizer. vLLM itself decodes an unbroken answer. For a continuation, this module repeats vLLM's
detokenizer over the earlier tokens, to find where to cut and which text was not shown yet.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.engines.vllm.params import StopScan, finish_of, is_continuable
from mesh.errors import EngineFailedError
from mesh.protocol.messages import Request

# A tokenizer's decoder shows this for bytes that do not form a whole character yet.
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Decoder:
    """The tokenizer's Rust core, which vLLM's incremental detokenizer also uses."""

    core: Any  # tokenizers.Tokenizer
    anchor: tuple[int, ...]  # ids of plain text; the context where the prompt's ids are not known

    @classmethod
    def of(cls, tokenizer: Any) -> "Decoder | None":
        """Return the decoder of a tokenizer that vLLM loaded; None: vLLM decodes this tokenizer in another way."""
        core: Any = getattr(tokenizer, "_tokenizer", None)
        if type(core).__module__.partition(".")[0] != "tokenizers":
            return None
        return cls(core, tuple(core.encode("a", add_special_tokens=False).ids))

    def stepper(self, context: Sequence[int], *, skips_special: bool) -> Callable[[int], str]:
        """Return a function from the next output token to its new text, after the ids in `context`."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(ids=list(context or self.anchor), skip_special_tokens=skips_special)
        return functools.partial(_step, stream, self.core)

    def is_whole(self, context: Sequence[int], token_ids: Sequence[int], *, skips_special: bool) -> bool:
        """Return whether the text ends with a whole character; otherwise vLLM would show the prompt again."""
        ids = [*(context or self.anchor), *token_ids]
        text: str = self.core.decode(ids, skip_special_tokens=skips_special)
        return not text.endswith(_INCOMPLETE)


@dataclass(slots=True)
class ResumeTail:
    """Makes text and end of a continued answer under stop strings, from vLLM's token ids."""

    scan: StopScan
    step: Callable[[int], str]

    def feed(self, token_ids: Sequence[int], finish: str | None) -> tuple[str, Sequence[int], str | None]:
        """Return the new text, the ids that belong to the answer, and its finish reason if it ended."""
        n_silent = 1 if finish == "stop" and not self.scan.keeps_stop else 0  # the stop id shows nothing
        for index, token_id in enumerate(token_ids):
            piece = "" if index >= len(token_ids) - n_silent else self.step(token_id)
            if self.scan.add(piece):
                return self.scan.take(is_finished=True), token_ids[: index + 1], "stop"
        return self.scan.take(is_finished=finish is not None), token_ids, finish


def resume_index(
    request: Request, token_ids: Sequence[int], text: str, decoder: Decoder | None, stop_ids: Collection[int]
) -> int:
    """Return how many earlier tokens an exact continuation can keep; 0: start again."""
    if not token_ids or decoder is None or not is_continuable(request):
        return 0
    # An answer can begin with half a character only after the prompt's own ids, where these are known.
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
    """Return the tail after `token_ids`, which have shown `text`.

    Returns:
        The tail; and, if these tokens end the answer, the rest of the text and the finish reason.

    Raises:
        EngineFailedError: these tokens cannot have shown this text.
    """
    step = decoder.stepper(prompt_ids, skips_special=request.skip_special_tokens)
    tail = ResumeTail(StopScan.of(request), step)
    _, _, finish = tail.feed(token_ids, finish)
    if not tail.scan.text.startswith(text):
        raise EngineFailedError("the earlier text does not match its tokens")
    tail.scan.n_shown = len(text)
    return tail, tail.scan.take(is_finished=True) if finish else "", finish


def _step(stream: Any, core: Any, token_id: int) -> str:
    try:
        return stream.step(core, token_id) or ""
    except Exception as error:  # the Rust core raises plain Exception, on output that is not valid UTF-8
        raise EngineFailedError(f"the tokenizer cannot decode the earlier output: {error}") from error
