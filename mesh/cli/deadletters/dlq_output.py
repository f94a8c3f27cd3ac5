"""Prints the output of `mesh dlq`: tables, one letter in full, and reports, as text or JSON."""

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from mesh.broker.stores.deadletters import DeadLetter
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.cli.terminal.text import one_line
from mesh.clock import SYSTEM
from mesh.control.deadletters.redrive import Decision, Verb, as_json, read_request
from mesh.control.deadletters.service import DeadLetterDetail
from mesh.protocol import codec

MOST_ROWS = 20  # in a terminal, of what was or would be done; the counts below say the rest
# A part of the reason that the attempts column repeats.
_ATTEMPTS = re.compile(r"^given up after \d+ attempts: ")

_JOB = TableColumn("job", least=33)  # an id that the client made up is shown whole
_LETTERS = (
    _JOB,
    TableColumn("tenant", least=6),
    TableColumn("model/tier", least=10),
    TableColumn("attempts", is_number=True),
    TableColumn("buried"),
    TableColumn("reason", least=10, is_prose=True),
)
_TREATED = (
    _JOB,
    TableColumn("tenant", least=6),
    TableColumn("plan"),
    TableColumn("why", least=20, is_prose=True),
)
_DONE: dict[Verb, str] = {
    "redrive": "redriven",
    "settle": "settled",
    "drop": "dropped",
    "skip": "skipped",
    "gone": "gone before",
}


@dataclass(frozen=True, slots=True)
class Treated:
    """One letter, and what was or would be done with it. Without its body: there may be many."""

    job: str
    tenant: str
    model: str
    tier: str
    sequence: int
    verb: Verb
    why: str


def treated(letter: DeadLetter, decision: Decision) -> Treated:
    """The line of a report."""
    at = letter.address
    return Treated(letter.job, at.tenant, at.model, at.tier, letter.sequence, decision.verb, decision.why)


def show_list(letters: Sequence[DeadLetter], total: int, is_json: bool) -> None:
    """The letters as a table, and how many there are in all."""
    if is_json:
        render.say_json(json.dumps({"total": total, "letters": [_summary(each) for each in letters]}))
    elif not letters:
        render.note("no dead letters match")
    else:
        show_table(_LETTERS, [_row(each) for each in letters])
        more = f"; the newest {len(letters)} are shown, --limit shows more" if total > len(letters) else ""
        render.note(f"{figures.many(total, 'dead letter')}{more}. `mesh dlq show JOB` shows one in full.")


def show_one(letter: DeadLetter, count: int, story: DeadLetterDetail, is_json: bool) -> None:
    """All that is known of a letter and its job. `count`: how many letters the job has."""
    if is_json:
        render.say_json(json.dumps(_whole(letter, story)))
        return
    for line in [*_head(letter, story), "", "request:", *_request(letter), "", *_attempts(story), ""]:
        render.say(render.harmless(line))
    if count > 1:
        render.say(f"This is the newest of {count} dead letters of this job; redrive and drop include all of them.")
    for line in _next_steps(letter, story):
        render.say(line)


def report(done: Sequence[Treated], is_applied: bool, is_json: bool) -> None:
    """Prints the actions taken for the letters, or planned."""
    counts = Counter(each.verb for each in done)
    if is_json:
        shown = [asdict(each) for each in done]
        render.say_json(json.dumps({"applied": is_applied, "counts": counts, "letters": shown}))
        return
    if not done:
        render.note("no dead letters match; nothing was changed.")
        return
    most = MOST_ROWS if render.is_terminal() else len(done)
    rows = [(one_line(each.job), one_line(each.tenant), each.verb, one_line(each.why)) for each in done[:most]]
    show_table(_TREATED, rows)
    if len(done) > most:
        render.say(f"… and {len(done) - most} more")
    for why, count in Counter(each.why for each in done if each.verb == "skip").items():
        render.note(f"skip {count}: {why}")
    words = ", ".join(f"{_DONE[verb] if is_applied else verb} {count}" for verb, count in counts.items())
    does_something = any(verb not in ("skip", "gone") for verb in counts)
    to_apply = " Add --apply to do it." if does_something else ""
    render.note(f"{words}." if is_applied else f"{words}; nothing was changed.{to_apply}")


def _row(letter: DeadLetter) -> tuple[str, ...]:
    reason = _ATTEMPTS.sub("", letter.reason) if letter.code == "attempts_exhausted" else _reason(letter)
    at = letter.address
    shown = (letter.job or "-", at.tenant, f"{at.model}/{at.tier}", str(letter.attempts), _ago(letter), reason)
    return tuple(one_line(each) for each in shown)


def _summary(letter: DeadLetter) -> dict[str, Any]:
    """A letter without its request."""
    return {
        "job": letter.job,
        "tenant": letter.address.tenant,
        "model": letter.address.model,
        "tier": letter.address.tier,
        "lane": letter.address.lane,
        "sequence": letter.sequence,
        "request_sequence": letter.request_sequence,
        "attempts": letter.attempts,
        "code": letter.code,
        "reason": letter.reason,
        "stored_unix_ms": letter.stored_unix_ms,
        "buried_unix_ms": letter.buried_unix_ms,
    }


def _whole(letter: DeadLetter, story: DeadLetterDetail) -> dict[str, Any]:
    shown = as_json(letter.body, letter.encoding)
    return _summary(letter) | {
        "encoding": letter.encoding,
        "traceparent": letter.traceparent,
        "request": None if shown is None else json.loads(shown),
        "request_error": read_request(letter.body, letter.encoding)[1] or None,
        "body_base64": base64.b64encode(letter.body).decode() if shown is None else None,
        "journal": [asdict(each) for each in story.attempts],
        "result": None if story.result is None else msgspec.to_builtins(codec.as_sent(story.result)),
        "redrive": {"verb": story.decision.verb, "why": story.decision.why},
    }


def _head(letter: DeadLetter, story: DeadLetterDetail) -> list[str]:
    at = letter.address
    result = story.result
    stored = f"{_instant(letter.stored_unix_ms)}, given up {_instant(letter.buried_unix_ms)}, {_ago(letter)}"
    lines = [
        ("job", letter.job),
        ("tenant", at.tenant),
        ("queue", f"{at.model}, {at.tier}, lane {at.lane}"),
        ("stored", stored),
        ("attempts", str(letter.attempts)),
        ("reason", _reason(letter)),
        ("result", "none any more" if result is None else f"{result.status}, {_instant(result.finished_unix_ms)}"),
    ]
    return [f"{name:<9} {text}" for name, text in lines]


def _request(letter: DeadLetter) -> list[str]:
    """The request as indented JSON, or what can be shown of a body that is none."""
    shown = as_json(letter.body, letter.encoding)
    error = read_request(letter.body, letter.encoding)[1]
    lines = shown.decode() if shown is not None else letter.body.decode("utf-8", "replace")
    return [*([f"  (no request: {error})"] if error else []), *(f"  {line}" for line in lines.splitlines())]


def _attempts(story: DeadLetterDetail) -> list[str]:
    if not story.attempts:
        return ["journal:", "  its events are gone"]
    lines = ["journal:"]
    for each in story.attempts:
        after = f" after token {each.index}" if each.index else ""
        came = f"{each.tokens} tokens, {each.outcome or 'outcome unknown'}"
        lines.append(f"  attempt {each.number}{after} on {each.worker}, {_instant(each.unix_ms)}: {came}")
    return lines


def _next_steps(letter: DeadLetter, story: DeadLetterDetail) -> list[str]:
    name = letter.job if letter.address.tenant == "default" else f"{letter.job} --tenant {letter.address.tenant}"
    drop = f"  mesh dlq drop {name} --apply"
    match story.decision.verb:
        case "gone":
            return ["The letter was removed meanwhile."]
        case "settle":
            return [f"Next: {story.decision.why}", f"  mesh dlq redrive {name} --apply"]
        case "skip" if "--deadline" in story.decision.why:
            again = [f"  mesh dlq redrive {name} --apply --deadline 600"]
        case "skip":
            return [f"It cannot be redriven now: {story.decision.why}.", drop]
        case _:
            again = [f"  mesh dlq redrive {name} --apply"]
    return ["Next, run it again or remove it:", *again, drop]


def _reason(letter: DeadLetter) -> str:
    return f"{letter.code}: {letter.reason}" if letter.code else letter.reason or "-"


def _ago(letter: DeadLetter) -> str:
    return f"{figures.span(max(1000.0, SYSTEM.wall_unix_ms() - letter.buried_unix_ms))} ago"


def _instant(unix_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000)) if unix_ms else "at an unknown time"
