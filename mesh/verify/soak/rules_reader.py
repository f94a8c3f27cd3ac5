"""The rules for the output that a reader gets. Pure."""

from collections.abc import Iterator

from mesh.verify.soak.history import Case, Shown
from mesh.verify.soak.oracle import Reference
from mesh.verify.soak.rules_journal import Fault

IN_ORDER = "a reader sees each token once, in order"
TOLD = "a reader learns the job's end"
SAME_RESULT = "a Result never changes"


def check_readers(case: Case, reference: Reference) -> Iterator[Fault]:
    """Check every reader of one job."""
    for shown in case.shown:
        yield from _check_reader(case, shown, reference)


def _check_reader(case: Case, shown: Shown, reference: Reference) -> Iterator[Fault]:
    reader = f"the {shown.reading} reader" if shown.reading != "none" else "the client that awaited it"
    if shown.restarts:
        yield IN_ORDER, f"{reader} was told {shown.restarts} times to discard its output, but the text did not change"
    index, text = 0, ""
    for piece in shown.pieces:
        if piece.index != index:
            kind = "gap" if piece.index > index else "repeat"
            yield IN_ORDER, f"{reader} got a {kind}: index {piece.index}, expected {index}"
            break
        index += len(piece.token_ids)
        text += piece.text
    if not reference.text.startswith(text):
        yield IN_ORDER, f"{reader} got text that differs from the reference"
    result = shown.result
    if result is None:
        if case.result is not None:
            yield TOLD, f"{reader} was not told that it ended {case.result.status}: {shown.fault or 'no reason'}"
        return
    if case.result is not None and result != case.result:
        yield SAME_RESULT, f"{reader} got another Result than the stored one"
    if shown.reading != "none" and text != result.text:
        yield IN_ORDER, f"{reader} got the Result, but only {len(text)} of {len(result.text)} characters"
