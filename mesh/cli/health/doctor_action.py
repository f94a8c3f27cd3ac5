"""`mesh doctor`: what was looked at, what is wrong, and what to do about it."""

from collections.abc import Iterator, Sequence

import msgspec

from mesh.cli.connecting import connect_options
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.live import progress
from mesh.cli.terminal.text import wrap
from mesh.control.doctor import checks, examine
from mesh.control.doctor.facts import LEVELS, Advice, Facts
from mesh.protocol.subjects import Names

RANK = 8  # columns of "warning" and a space
FIX = "fix: "
MOST_WIDTH = 110  # longer lines are hard to read


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `mesh doctor`."""

    is_healthy: bool  # no error
    advice: list[Advice]
    facts: Facts


async def run(nats: Nats, monitor: str | None, is_quick: bool, as_json: bool) -> bool:
    """Examine, and show what was found; whether there is no error."""
    with progress() as tell:
        tell("looking …" if is_quick else "looking, and importing vLLM (--quick does not) …", 0)
        facts = await examine.examine_all(connect_options(nats), Names(nats.namespace), monitor, is_quick)
    advice = checks.diagnose(facts)
    is_healthy = not any(each.level == "error" for each in advice)
    if as_json:
        render.say_json(msgspec.json.encode(DoctorReport(is_healthy=is_healthy, advice=advice, facts=facts)).decode())
        return is_healthy
    width = min(render.width(), MOST_WIDTH) if render.is_terminal() else render.UNLIMITED
    for line in lines_of(facts, advice, width):
        render.say(line)
    return is_healthy


def lines_of(facts: Facts, advice: Sequence[Advice], width: int) -> list[str]:
    """The report, no wider than `width`. Pure."""
    lines = [line for name, text in checks.summary(facts) for line in _hanging(f"{name:<{RANK}} ", text, width)]
    lines.append("")
    for each in advice:
        lines += _hanging(f"{each.level:<{RANK}} ", each.text, width)
        lines += _hanging(" " * (RANK + 1) + FIX, each.fix, width)
    if advice:
        lines.append("")
    lines.append(_count(advice))
    return lines


def _hanging(lead: str, text: str, width: int) -> Iterator[str]:
    """`text` behind `lead`, its further lines below its first."""
    for number, line in enumerate(wrap(" ".join(text.split()), max(20, width - len(lead)))):
        yield (lead if number == 0 else " " * len(lead)) + line


def _count(advice: Sequence[Advice]) -> str:
    if not advice:
        return "nothing is wrong."
    counts = [(sum(1 for each in advice if each.level == level), level) for level in LEVELS]
    return ", ".join(figures.many(count, level) for count, level in counts if count) + "."
