"""The benchmark runs from end to end and checks what it measures. How fast anything is, is not asserted."""

import math

import pytest

from mesh.engines.base import Work
from mesh.protocol.messages import Request
from tests.bench import audited, door, durability
from tests.bench.engine import INSTANT, BenchEngine, expected, prompt_of
from tests.bench.report import WIDTH
from tests.bench.simulated import SMALL, measure

ROWS = [
    "unary alone p50, µs",
    "unary alone p99, µs",
    "one token streamed alone p50, µs",
    "one token streamed alone p99, µs",
    "unary at 4, req/s",
    "unary at 4, CPU µs/req",
    "4 streams burst 1, tokens/s",
    "4 streams burst 1, tokens/event",
    "4 streams burst 1, CPU µs/token",
    "4 streams burst 16, tokens/s",
    "4 streams burst 16, tokens/event",
    "4 streams burst 16, CPU µs/token",
    "4 streams instant, tokens/s",
    "4 streams instant, tokens/event",
    "4 streams instant, CPU µs/token",
    "paced: token late by p50, ms",
    "paced: token late by p99, ms",
    "paced: first token p50, ms",
    "paced: first token p99, ms",
    "paced: tokens/event",
    "paced: client CPU µs/token",
    "paced: worker CPU µs/token",
    "paced: broker CPU µs/token",
    "paced: CPU µs/token",
]


async def test_every_measure_gives_a_row_and_every_stream_is_checked() -> None:
    report = await measure(rounds=1, sizes=SMALL)
    assert list(report.rows) == ROWS
    for row, values in report.rows.items():
        for side, found in values.items():
            assert len(found) == 1, (row, side)
            assert all(math.isfinite(value) for value in found), (row, side)
    streamed = 3 * SMALL.streams + SMALL.paced
    plain = 2 * SMALL.alone + SMALL.many
    assert report.checked == {"mesh": plain + streamed, "floor": plain + streamed, "coalesced": streamed}
    table = report.table().splitlines()
    assert all(any(line.startswith(row) for line in table) for row in ROWS)
    assert max(map(len, table)) <= WIDTH


async def test_the_front_door_is_measured_against_the_client() -> None:
    report = await door.measure(rounds=1, sizes=SMALL)
    assert report.checked == dict.fromkeys(("front door", "client"), 2 * SMALL.alone + SMALL.many)
    assert math.isfinite(report.rows[door.ADDED]["front door"][0])
    assert door.ADDED in report.table()


async def test_a_mesh_with_an_audit_is_measured_against_one_without() -> None:
    report = await audited.measure(rounds=1, sizes=SMALL)
    done = SMALL.alone + SMALL.many + SMALL.streams
    assert report.checked == dict.fromkeys((audited.WITH, audited.WITHOUT), done)


async def test_strict_is_measured_against_standard() -> None:
    report = await durability.measure(rounds=1, sizes=SMALL)
    assert report.checked == dict.fromkeys(("strict", "standard"), 2 * SMALL.alone + SMALL.many + SMALL.streams)
    assert "strict / standard" in report.table()
    assert all(math.isfinite(value) for sides in report.rows.values() for [value] in sides.values())


def test_the_instant_engine_gives_each_token_by_itself_and_the_loop_to_nobody() -> None:
    prompt = prompt_of(INSTANT, 3)
    stream = BenchEngine().generate(Work("job", Request(prompt=prompt, max_tokens=20, temperature=0), 0))
    chunks = []
    for _ in range(20):
        with pytest.raises(StopIteration) as stop:  # what a coroutine raises that has waited for nothing
            stream.__anext__().send(None)
        chunks.append(stop.value.value)
    text, token_ids = expected(prompt, 20)
    assert "".join(chunk.text for chunk in chunks) == text
    assert [list(chunk.token_ids) for chunk in chunks] == [[each] for each in token_ids]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 19 + ["length"]
