"""`mesh job`: one job's whole life, for people or as JSON."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from mesh.cli.ask.answer import tokens_per_s
from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.text import wrap
from mesh.control.jobs.job_detail import JobDetail, JobDetailReader
from mesh.control.jobs.timeline import AttemptSummary, TimelineEntry, folded
from mesh.job_key import JobKey
from mesh.protocol.messages import Result

FEW = 12  # moments that are shown one by one also where runs of tokens are folded
MOST_MOMENTS = 200  # the JSON has all of them

HANG = " " * 6  # before what is left of a line that was too long

_LIVE = ("queued", "running", "retrying", "ending")


async def show(nats: Nats, tenant: str, job: str, has_prompt: bool, has_events: bool, as_json: bool) -> None:
    """Print all that is known of one job.

    Raises:
        ResultNotFoundError: nothing is.
    """
    async with open_mesh(nats) as broker:
        told = await JobDetailReader(broker).tell(JobKey(tenant, job), has_prompt)
    if as_json:
        render.say_json(msgspec.json.encode(told, enc_hook=str).decode())
        return
    for line in lines(told, render.width(), has_events):
        render.say(line)
    for line in _next_steps(told):
        render.note(line)


def lines(told: JobDetail, width: int, has_events: bool = False) -> list[str]:
    """The life as text of so many columns; a prompt is left as it is. Pure, but for the clock's zone."""
    before, after = [_head(told)], [_waits(told), _attempts(told), _moments(told, has_events), _ending(told)]
    parts = [*(_fitted(part, width) for part in before), list(_prompt(told)), *(_fitted(part, width) for part in after)]
    shown: list[str] = []
    for part in parts:
        shown += [*([""] if shown and part else []), *map(render.harmless, part)]
    return shown


def _fitted(part: Iterable[str], width: int) -> list[str]:
    """Lines that are too long go on below, indented."""
    fitted: list[str] = []
    for line in part:
        first, *rest = wrap(line, width - len(HANG)) or [""]
        fitted += [first, *(HANG + each for each in rest)]
    return fitted


def _head(told: JobDetail) -> Iterator[str]:
    now = told.job_state
    yield f"job       {told.job}"
    yield f"tenant    {told.tenant}"
    if told.model:
        yield f"queue     {told.model}{f'/{told.tier}, lane {told.lane}' if told.tier else ''}"
    state = told.status
    if now is not None and now.attempt:
        state += (
            f", attempt {now.attempt}{f' on {now.worker}' if now.worker else ''}, {figures.many(now.tokens, 'token')}"
        )
        if told.moments and told.stored_unix_ms:
            quiet_ms = told.now_unix_ms - told.stored_unix_ms - told.moments[-1].at_ms
            state += f", last event {figures.span(quiet_ms)} ago"
    yield f"state     {state}"
    if told.stored_unix_ms:
        ago = figures.span(told.now_unix_ms - told.stored_unix_ms)
        yield f"stored    {_instant(told.stored_unix_ms)}, {ago} ago{f', request {now.sequence}' if now else ''}"
    if told.deadline_unix_ms and told.status in _LIVE:
        left_ms = told.deadline_unix_ms - told.now_unix_ms
        yield f"deadline  {_instant(told.deadline_unix_ms)}, {f'in {figures.span(left_ms)}' if left_ms > 0 else 'past'}"
    request = told.request
    if request is not None:
        fields = ", ".join(f"{name} {_brief(value)}" for name, value in request.fields.items())
        yield f"request   {request.input}{'; ' if fields else ''}{fields}"
    elif told.status not in _LIVE:
        yield "request   kept no longer: it leaves the queue with its Result"


def _prompt(told: JobDetail) -> Iterator[str]:
    if told.prompt is not None:
        yield "prompt:"
        text = told.prompt if isinstance(told.prompt, str) else json.dumps(told.prompt, indent=2, ensure_ascii=False)
        yield from (f"  {line}" for line in text.splitlines())


def _waits(told: JobDetail) -> Iterator[str]:
    if told.waits:
        yield "it waits:"
        yield from (f"  {each.text}" for each in told.waits)


def _attempts(told: JobDetail) -> Iterator[str]:
    if not told.attempts:
        return
    yield "attempts:"
    yield from (f"  {_attempt(each)}" for each in told.attempts)


def _attempt(each: AttemptSummary) -> str:
    after = f" from token {each.index:,} on" if each.index else ""
    made = f"{figures.many(each.tokens, 'token')}" + (f" in {figures.span(each.took_ms)}" if each.took_ms else "")
    isolated = ", alone" if each.isolated else ""
    return f"{each.number} on {each.worker}{isolated}{after}: {made}; {each.outcome}"


def _moments(told: JobDetail, has_events: bool) -> Iterator[str]:
    if not told.moments:
        return
    shown = told.moments if has_events or len(told.moments) <= FEW else folded(told.moments)
    yield "events:"
    if len(shown) > MOST_MOMENTS:
        half = MOST_MOMENTS // 2
        yield from map(_moment, shown[:half])
        yield f"  … {len(shown) - 2 * half:,} more; --json has them all"
        shown = shown[-half:]
    yield from map(_moment, shown)


def _moment(each: TimelineEntry) -> str:
    return f"  {_offset(each.at_ms):>11}  {_happened(each)}"


def _happened(each: TimelineEntry) -> str:
    match each.kind:
        case "stored":
            return "the request was stored"
        case "started":
            after = f", from token {each.index:,} on" if each.index else ""
            return f"attempt {each.attempt} began on {each.worker}{after}"
        case "tokens":
            first, last = each.index + 1, each.index + each.tokens
            span = f"token {first:,}" if first == last else f"tokens {first:,}-{last:,}"
            return span + (f" in {each.events:,} events" if each.events > 1 else "")
        case "note":
            return f"attempt {each.attempt} ended, {each.text}"
        case "closed":
            return "the journal was closed: the job is about to be ended"
        case "result":
            return f"Result: {each.text}"
        case "later":
            return each.text
        case "buried":
            return f"kept as a dead letter: {each.text}"


def _ending(told: JobDetail) -> Iterator[str]:
    result, letter = told.result, told.dead_letter
    if result is not None:
        yield "result:"
        yield from (f"  {line}" for line in _result(result))
    if letter is not None:
        yield "dead letter:"
        yield f"  {letter.code}: {letter.reason} ({_instant(letter.buried_unix_ms)})"


def _result(result: Result) -> Iterator[str]:
    usage, timing = result.usage, result.timing
    why = f" ({result.finish_reason})" if result.finish_reason else ""
    by = f", by {result.worker}" if result.worker else ""
    yield f"{result.status}{why}, {figures.many(result.attempts, 'attempt')}{by}"
    if result.error is not None:
        yield f"{result.error.code}: {result.error.message}"
    cached = f" ({usage.cached_tokens:,} of them cached)" if usage.cached_tokens else ""
    yield f"{figures.many(usage.prompt_tokens, 'token')} in{cached}, {usage.completion_tokens:,} out"
    parts = [f"queued {figures.span(timing.queued_ms)}"]
    if timing.first_token_ms is not None:
        parts.append(f"first token after {figures.span(timing.first_token_ms)}")
    parts.append(f"all after {figures.span(timing.total_ms)}")
    if (speed := tokens_per_s(result)) is not None:
        parts.append(f"{speed:.0f} tokens/s")
    yield ", ".join(parts)
    if result.metadata:
        yield f"metadata {json.dumps(result.metadata, ensure_ascii=False)}"


def _next_steps(told: JobDetail) -> Sequence[str]:
    name = told.job if told.tenant == "default" else f"{told.job} --tenant {told.tenant}"
    if told.status in _LIVE:
        return [f"`mesh tail {name}` follows its output, `mesh cancel {name}` stops it."]
    if told.dead_letter is not None:
        return [f"`mesh dlq show {name}` has the request, `mesh dlq redrive {name}` runs it again."]
    return [f"`mesh result {name}` prints its output."] if told.result is not None else []


def _offset(ms: int) -> str:
    return f"+{ms} ms" if abs(ms) < 10_000 else f"+{ms / 1000:,.1f} s"


def _instant(unix_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000)) if unix_ms else "at a time unknown"


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
