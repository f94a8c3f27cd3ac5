"""Formats one job's records as readable lines, printed with every violation. Pure.

A trace has the request, the clients' answers, the messages on the wire, and JetStream's content, in the order of time.
"""

from mesh.protocol.messages import Delta, Event, Result, Started
from mesh.verify.soak.history import Case, Sent, Shown, StoredEvent, Struck

TEXT_CHARS = 60  # of an output shown


def trace_of(case: Case, struck: list[Struck] | None = None) -> list[str]:
    """Return the trace of one job. `struck`: faults; those during the job's time are shown."""
    lines = [f"job {case.job}: {_asked(case)}"]
    moments: list[tuple[float, str]] = [
        (each.at_s, f"submit {each.outcome} {each.detail}".rstrip()) for each in case.submitted
    ]
    moments += [(run[0].at_s, f"wire {_sent_run(run)}") for run in _runs(case.sent)]
    moments += [
        (each.at_s, f"wire {each.verb} of request {each.sequence}" + ("" if each.is_confirmed else ", unconfirmed"))
        for each in case.settled
    ]
    moments += [(each.at_s, "wire the workers are told to cancel it") for each in case.told]
    for each in case.cancelled:
        moments.append((each.asked_s, "client asks to cancel it"))
        moments.append((each.answered_s, f"cancel answered: {each.answer or each.fault}"))
    if moments and struck:
        first, last = min(at_s for at_s, _ in moments), max(at_s for at_s, _ in moments)
        moments += [
            (each.at_s, f"FAULT {each.kind} of {each.victim} until {each.until_s:.3f}")
            for each in struck
            if each.until_s >= first and each.at_s <= last
        ]
    lines += [f"  {at_s:9.3f} {text}" for at_s, text in sorted(moments, key=lambda moment: moment[0])]
    lines += ["  journal:"] + [f"    {_kept_run(run)}" for run in _kept_runs(case.events)]
    if case.attempts:
        lines += ["  attempts:"] + [f"    {_kept(kept)}" for kept in case.attempts]
    lines.append(f"  stored: {_event(case.result) if case.result is not None else 'no Result'}")
    lines += [f"  {_shown(shown)}" for shown in case.shown]
    lines += [f"  dead letter after {each.attempts} attempts: {each.reason}" for each in case.letters]
    return lines


def _asked(case: Case) -> str:
    asked = case.asked
    if asked is None:
        return "no client submitted it"
    request = asked.request
    what = f"{asked.kind}, {asked.tier}, tenant {asked.tenant}, max_tokens {request.max_tokens}"
    what += "" if request.stream else ", no stream"
    if request.on_worker_loss != "resume":
        what += f", on_worker_loss {request.on_worker_loss}"
    return what + (f", read {asked.reading}" if asked.reading != "none" else "")


def _runs(sent: list[Sent]) -> list[list[Sent]]:
    """Group consecutive deltas into one line; each other message gets its own line."""
    found: list[list[Sent]] = []
    for each in sent:
        if found and _continues(found[-1][-1], each):
            found[-1].append(each)
        else:
            found.append([each])
    return found


def _continues(last: Sent, each: Sent) -> bool:
    is_next = last.what == each.what == "delta" and last.index + last.tokens == each.index
    is_fenced = (last.expected is None) == (each.expected is None)
    return is_next and is_fenced and (last.attempt, last.sender) == (each.attempt, each.sender)


def _sent_run(run: list[Sent]) -> str:
    if len(run) == 1:
        return _sent(run[0])
    first, last = run[0], run[-1]
    tokens = last.index + last.tokens - first.index
    fence = "no fence" if first.expected is None else f"after {first.expected} to {last.expected}"
    return (
        f"{len(run)} deltas attempt {first.attempt} at {first.index}, {tokens} tokens, until {last.at_s:.3f} "
        f"({fence}, from {first.sender[-6:] or 'nobody'})"
    )


def _kept_runs(kept: list[StoredEvent]) -> list[list[StoredEvent]]:
    """Group a journal in the same way."""
    found: list[list[StoredEvent]] = []
    for each in kept:
        if found and _goes_on(found[-1][-1].event, each.event):
            found[-1].append(each)
        else:
            found.append([each])
    return found


def _goes_on(last: Event | None, each: Event | None) -> bool:
    if not isinstance(last, Delta) or not isinstance(each, Delta) or last.finish_reason is not None:
        return False
    return last.attempt == each.attempt and last.index + len(last.token_ids) == each.index


def _kept_run(run: list[StoredEvent]) -> str:
    first, last = run[0].event, run[-1].event
    if len(run) == 1 or not isinstance(first, Delta) or not isinstance(last, Delta):
        return _kept(run[0])
    tokens = last.index + len(last.token_ids) - first.index
    end = f", finished {last.finish_reason}" if last.finish_reason else ""
    return (
        f"{run[0].sequence} to {run[-1].sequence}: {len(run)} deltas attempt {first.attempt} at {first.index}, "
        f"{tokens} tokens{end}"
    )


def _sent(sent: Sent) -> str:
    fence = "no fence" if sent.expected is None else f"after {sent.expected}"
    where = "" if sent.to == "events" else f" to {sent.to}"
    more = ""
    if sent.what == "started":
        more = f" attempt {sent.attempt} at {sent.index} by {sent.worker}"
    elif sent.what == "delta":
        more = f" attempt {sent.attempt} at {sent.index}, {sent.tokens} tokens"
    elif sent.what == "result":
        more = f" after {sent.attempt} attempts, {sent.tokens} tokens, by {sent.worker}"
    return f"{sent.what}{more}{where} ({fence}, from {sent.sender[-6:] or 'nobody'})"


def _kept(kept: StoredEvent) -> str:
    return f"{kept.sequence}: {_event(kept.event) if kept.event is not None else kept.note[:200] or 'foreign'}"


def _event(event: Event) -> str:
    match event:
        case Started():
            return f"started attempt {event.attempt} at {event.index} by {event.worker}, request {event.sequence}"
        case Delta():
            end = f", finished {event.finish_reason}" if event.finish_reason else ""
            return f"delta attempt {event.attempt} at {event.index}, {len(event.token_ids)} tokens{end}"
        case Result():
            why = f" ({event.error.code}: {event.error.message})" if event.error is not None else ""
            return (
                f"result {event.status}{why}, {event.attempts} attempts, {event.usage.completion_tokens} tokens, "
                f"by {event.worker or 'nobody'}, text {'elsewhere' if event.object is not None else _brief(event.text)}"
            )


def _brief(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= TEXT_CHARS else shown[: TEXT_CHARS - 1] + "…"


def _shown(shown: Shown) -> str:
    tokens = sum(len(each.token_ids) for each in shown.pieces)
    end = f"told {shown.result.status}" if shown.result is not None else f"not told the end ({shown.fault or 'left'})"
    restarts = f", {shown.restarts} restarts" if shown.restarts else ""
    return f"reader ({shown.reading}): {len(shown.pieces)} pieces, {tokens} tokens{restarts}, {end}"
