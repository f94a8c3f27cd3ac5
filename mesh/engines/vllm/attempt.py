"""Plans one attempt at a job for vLLM, or its end if earlier attempts left nothing to do. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mesh.engines.base import Work
from mesh.engines.vllm.params import finish_of, stop_ids_of
from mesh.engines.vllm.resume import Decoder, ResumeTail, tail_of
from mesh.errors import EngineFailedError
from mesh.protocol.validate import stop_strings


@dataclass(frozen=True, slots=True)
class VllmAttempt:
    """The input of one vLLM request, and the way to read its output."""

    prompt_ids: list[int]  # the request's prompt, then the earlier output
    arguments: dict[str, Any]  # of SamplingParams
    tail: ResumeTail | None = None  # makes the text where vLLM cannot
    finish: str | None = None  # set: the earlier output is the whole answer, so vLLM is not called
    text: str = ""  # with `finish`: the end of the text, not shown yet


def attempt_of(
    work: Work,
    prompt_ids: list[int],
    arguments: dict[str, Any],
    *,
    max_model_len: int,
    eos_ids: Collection[int],
    decoder: Decoder | None,
) -> VllmAttempt:
    """Plan the attempt.

    Args:
        prompt_ids: the request's own prompt, shorter than `max_model_len`.
        arguments: from `sampling_arguments`, with the earlier output taken into account; changed in place.

    Raises:
        EngineFailedError: the earlier output cannot be continued; `resume_index` returns 0 for it.
    """
    request, earlier = work.request, list(work.token_ids)
    room = max_model_len - len(prompt_ids) - len(earlier)
    arguments["max_tokens"] = min(arguments["max_tokens"], max(room, 1))
    arguments["min_tokens"] = min(arguments["min_tokens"], arguments["max_tokens"])
    if not earlier:
        return VllmAttempt(prompt_ids, arguments)
    finish = finish_of(request, earlier, stop_ids_of(request, eos_ids))
    if finish is None and room <= 0:
        finish = "length"
    tail, text = None, ""
    if stop_strings(request):
        if decoder is None:
            raise EngineFailedError("this tokenizer's output cannot be continued under stop strings")
        tail, text, finish = tail_of(request, decoder, prompt_ids, earlier, work.text, finish)
        del arguments["stop"]  # a stop string may begin in the earlier output, and vLLM does not search there
        arguments["detokenize"] = False
    return VllmAttempt(prompt_ids + earlier, arguments, tail, finish, text)
