"""What a reader may be shown of a job. Pure."""

from collections.abc import Iterator

from mesh.verify.soak.history import Case, Shown
from mesh.verify.soak.oracle import Reference
from mesh.verify.soak.rules_journal import Fault

IN_ORDER = "a reader sees each token once, in order"
TOLD = "a reader learns how the job ended"
SAME_RESULT = "a Result never changes"


def judge_readers(case: Case, reference: Reference) -> Iterator[Fault]:
    """Every reader of one job."""
    for shown in case.shown:
        yield from _judge_reader(case, shown, reference)


def _judge_reader(case: Case, shown: Shown, reference: Reference) -> Iterator[Fault]:
    who = f"the {shown.reading} reader" if shown.reading != "none" else "who awaited it"
    if shown.restarts:
        yield IN_ORDER, f"{who} was told {shown.restarts} times to discard what it had; the text does not differ"
    index, text = 0, ""
    for piece in shown.pieces:
        if piece.index != index:
            kind = "gap" if piece.index > index else "repeat"
            yield IN_ORDER, f"{who} met a {kind}: index {piece.index} where {index} was due"
            break
        index += len(piece.token_ids)
        text += piece.text
    if not reference.text.startswith(text):
        yield IN_ORDER, f"{who} was shown what the job never said"
    result = shown.result
    if result is None:
        if case.result is not None:
            yield TOLD, f"{who} was not told that it ended {case.result.status}: {shown.fault or 'no reason'}"
        return
    if case.result is not None and result != case.result:
        yield SAME_RESULT, f"{who} was given one that is not the one stored"
    if shown.reading != "none" and text != result.text:
        yield IN_ORDER, f"{who} saw the Result, and {len(text)} characters of {len(result.text)}"
