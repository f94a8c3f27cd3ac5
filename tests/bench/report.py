"""Figures of several rounds as a table of medians and ratios, and as JSON."""

import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH = 100
_VALUE, _RATIO = 10, 18  # columns
NOTHING = "-"  # in place of a figure that there is none of


@dataclass(frozen=True, slots=True)
class Block:
    """Ratios that stand beside each other, a line for each side that has any. At most four, for `WIDTH`."""

    over: str  # the side whose values are taken over the others'
    cells: Sequence[tuple[str, str]]  # a heading, of at most `_RATIO` - 1 characters, and the row that it is about


@dataclass(slots=True)
class Report:
    """What was measured: per row and side, one value a round. Ratios are taken within a round."""

    title: str
    sides: Sequence[str]  # the first is the mesh, or what is looked at; each other gets a ratio column
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)  # streams compared token by token, by side

    def add(self, row: str, side: str, value: float) -> None:
        """One more round's value."""
        self.rows.setdefault(row, {}).setdefault(side, []).append(value)

    def count(self, side: str, streams: int) -> None:
        """So many more streams were right."""
        self.checked[side] = self.checked.get(side, 0) + streams

    def ratios(self, row: str, other: str, over: str | None = None) -> list[float]:
        """The mesh's value (or that of the side `over`) over the other's, for each round."""
        values = self.rows.get(row, {})
        first, second = values.get(over or self.sides[0], []), values.get(other, [])
        return [a / b for a, b in zip(first, second, strict=False) if b and math.isfinite(a / b)]

    def table(self) -> str:
        """Text of at most `WIDTH` columns."""
        mesh, others = self.sides[0], self.sides[1:]
        wide = 1 + max(map(len, (self.title, *self.rows)))
        head = f"{self.title:<{wide}}" + "".join(f"{side:>{_VALUE}}" for side in self.sides)
        heads = [f"{mesh} / {other}" for other in others]
        spans = [max(_RATIO, 1 + len(each)) for each in heads]
        lines = [(head + "".join(f"{each:>{span}}" for each, span in zip(heads, spans, strict=True))).rstrip()]
        lines.append("-" * len(lines[0]))
        for name, values in self.rows.items():
            line = f"{name:<{wide}}" + "".join(f"{_value(values.get(side, [])):>{_VALUE}}" for side in self.sides)
            ratios = (_spread(self.ratios(name, other)) for other in others)
            lines.append((line + "".join(f"{e:>{span}}" for e, span in zip(ratios, spans, strict=True))).rstrip())
        rounds = max((len(each.get(mesh, [])) for each in self.rows.values()), default=0)
        lines.append(f"medians of {rounds} rounds; ratios within a round: median [min..max]")
        lines.append("streams checked token by token: " + _counts(self.checked))
        return "\n".join(lines)

    def standing(self, blocks: Sequence[Block]) -> str:
        """The same for many sides, a line for each: one side's value over its own."""
        heads = [f"{block.over} over" for block in blocks]
        wide = max(map(len, (*heads, *self.sides)))
        lines = []
        for block, head in zip(blocks, heads, strict=True):
            standing = []
            for other in self.sides:
                cells = [_spread(self.ratios(row, other, block.over)) for _, row in block.cells]
                if other != block.over and any(cell != NOTHING for cell in cells):
                    standing.append((f"{other:<{wide}}" + "".join(f"{each:>{_RATIO + 2}}" for each in cells)).rstrip())
            if standing:
                lines += ["", f"{head:<{wide}}" + "".join(f"{each:>{_RATIO + 2}}" for each, _ in block.cells)]
                lines += ["-" * len(lines[-1]), *standing]
        rounds = max((len(each.get(self.sides[0], [])) for each in self.rows.values()), default=0)
        lines += ["", f"ratios within a round, of {rounds} rounds: median [min..max]"]
        lines += textwrap.wrap("answers checked: " + _counts(self.checked), WIDTH, break_on_hyphens=False)
        return "\n".join([self.title, *lines])

    def as_json(self) -> dict[str, Any]:
        """Everything, values in the order of the rounds."""
        return {
            "title": self.title,
            "sides": list(self.sides),
            "rows": self.rows,
            "ratios": {row: {other: self.ratios(row, other) for other in self.sides[1:]} for row in self.rows},
            "checked": self.checked,
        }


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _value(values: list[float]) -> str:
    return _number(statistics.median(values)) if values else NOTHING


def _number(value: float) -> str:
    if not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(ratios: list[float]) -> str:
    if not ratios:
        return NOTHING
    low, middle, high = map(_ratio, (min(ratios), statistics.median(ratios), max(ratios)))
    return f"{middle} [{low}..{high}]"


def _ratio(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
