"""Pure: one attempt at a job as vLLM shall run it, or its end if earlier attempts left nothing to do."""

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
    """What to ask of vLLM, and what to make of its answer."""

    prompt_ids: list[int]  # with the earlier output behind the request's own prompt
    arguments: dict[str, Any]  # of SamplingParams
    tail: ResumeTail | None = None  # makes the text, where vLLM cannot
    finish: str | None = None  # the earlier output already is the whole answer: there is nothing to ask
    text: str = ""  # what the earlier output has not shown of it yet


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
        prompt_ids: of the request alone, shorter than `max_model_len`.
        arguments: of `sampling_arguments`, the earlier output taken into account; changed here.

    Raises:
        EngineFailedError: the earlier output cannot be continued; `resume_index` would have said 0.
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
        del arguments["stop"]  # a stop string may have begun in the earlier output, where vLLM does not look
        arguments["detokenize"] = False
    return VllmAttempt(prompt_ids + earlier, arguments, tail, finish, text)
