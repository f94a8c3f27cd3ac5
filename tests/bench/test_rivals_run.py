"""The comparison with the rivals runs from end to end, with whichever of them are installed. No speed is asserted."""

import argparse
import importlib.util
import math
import shutil
from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet

from tests.bench import __main__ as command
from tests.bench.engine import expected
from tests.bench.report import WIDTH, Block, Report
from tests.bench.rivals import parts
from tests.bench.rivals.measure import GATHERING, NAMES, RIVALS, blocks, measure
from tests.bench.rivals.plain import tokens_of
from tests.bench.sides import COALESCED, FLOOR, MESH
from tests.bench.simulated import SMALL, Sizes


def _with(names: Iterable[str]) -> list[ParameterSet]:
    """Each name, skipped where its rival cannot run."""
    lacking = {name: RIVALS[name].missing() for name in names}
    return [
        pytest.param(name, marks=pytest.mark.skipif(lacking[name] is not None, reason=str(lacking[name])))
        for name in names
    ]


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("default")  # other people's libraries warn as they like
@pytest.mark.parametrize("name", _with(RIVALS))
async def test_a_rival_is_measured_beside_the_mesh_and_every_answer_checked(name: str) -> None:
    report = await measure(rounds=1, only=[name], sizes=SMALL)
    everything = SMALL.alone + SMALL.many + 2 * SMALL.streams + SMALL.paced
    assert report.checked == {MESH: everything, name: everything}
    for block in blocks(SMALL.at_once):
        for _, row in block.cells:
            assert math.isfinite(report.rows[row][name][0]), row


async def test_our_own_sides_need_nothing_that_the_tests_do_not_have() -> None:
    report = await measure(rounds=1, only=[GATHERING, FLOOR, COALESCED], sizes=SMALL)
    assert report.sides == [MESH, GATHERING, FLOOR, COALESCED]
    assert report.checked[GATHERING] == SMALL.paced
    assert report.checked[COALESCED] == 2 * SMALL.streams + SMALL.paced
    table = report.standing(blocks(SMALL.at_once)).splitlines()
    # Of the mesh over each: requests, streams, paced streams. Then the gathering mesh over each: paced streams.
    assert [sum(line.startswith(f"{name} ") and "[" in line for line in table) for name in report.sides] == [1, 1, 4, 3]


async def test_in_a_mesh_that_gathers_more_tokens_come_together() -> None:
    report = await measure(rounds=1, only=[GATHERING], sizes=SMALL)
    row = report.rows["paced: tokens/event"]
    assert row[GATHERING][0] > row[MESH][0]


def test_the_table_has_a_line_for_each_side_and_fits() -> None:
    report = Report("title", [MESH, *NAMES])
    shown = blocks(Sizes().at_once)
    for _, row in (cell for block in shown for cell in block.cells):
        for number, side in enumerate(report.sides):
            report.add(row, side, 12_345.678 if side in (MESH, GATHERING) else 10.0**number)
            report.add(row, side, 1.0)
            report.count(side, 1)
    lines = report.standing(shown).splitlines()
    assert max(map(len, lines)) <= WIDTH
    for name in RIVALS:
        assert sum(line.startswith(name + " ") and "[" in line for line in lines) == len(shown)


def test_a_side_that_was_left_out_has_no_line() -> None:
    report = Report("title", ["mesh", "there", "away"], rows={"row": {"mesh": [2.0], "there": [1.0]}})
    assert "there" in report.standing([Block("mesh", [("head", "row")])])
    assert "away" not in report.standing([Block("mesh", [("head", "row")])])
    assert "head" not in report.standing([Block("away", [("head", "row")])])


def test_what_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts.missing(["no_such_module"], redis=False) == f"no_such_module missing: {parts.INSTALL}"
    assert parts.missing(["json"], redis=False) is None
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert parts.missing(["json"], redis=True) == f"redis-server is not on PATH: {parts.REDIS}"


async def test_a_rival_that_cannot_run_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = await measure(rounds=1, only=["celery"], sizes=SMALL)
    assert report.sides == ["mesh"]
    assert f"celery is left out: celery, redis, hiredis missing: {parts.INSTALL}" in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"rabbit: not among {', '.join(NAMES)}"):
        command._names("celery,rabbit")


@pytest.mark.parametrize("prompt", ["fast prompt number 3", "instant prompt number 2", "paced prompt number 1"])
def test_the_engine_without_a_loop_writes_what_the_other_one_writes(prompt: str) -> None:
    pieces = list(tokens_of(prompt, 20, due_s=0.0))
    assert ("".join(text for text, _ in pieces), [ids[0] for _, ids in pieces]) == expected(prompt, 20)
