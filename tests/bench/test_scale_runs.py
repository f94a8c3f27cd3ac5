"""The scale benchmark runs from end to end on small sizes. What anything costs is not asserted."""

import math

import pytest

from tests.bench.report import WIDTH
from tests.bench.scale import PARTS, TINY, measure

# By part: rows that it gives at least, and how many jobs were checked on the large side and the small one.
ROWS = {
    "memory": ["an idle client, RSS MiB", "an idle `mesh worker` on the simulator, RSS MiB"],
    "queue": [
        "submit, last / first 50 of 150: all µs/submit",
        "a waiting handle: client RSS, bytes",
        "a queued job: stream, bytes",
        "unary, 150 handles wait: all µs/job",
        "unary, 150 queued: all µs/job",
        "drain, 150 / 20 deep: all µs/job",
    ],
    "streams": [
        "stream, 40 / 10 at once: all µs/token",
        "a running stream: worker RSS, bytes",
        "quiet stream, 40 / 10 at once: all µs/s",
    ],
    "tenants": ["unary, 5 tenants / 1: all µs/job"],
    "workers": ["2 workers / 1, idle: worker CPU ms/s per worker", "2 workers / 1, unary at 40/s: all µs/job"],
}
OFFERED = int(2 * TINY.workers.rate * TINY.workers.block_s)
CHECKED = {
    "memory": {},
    "queue": {"large": 4 * TINY.queue.unary, "small": 4 * TINY.queue.unary},
    "streams": {"large": 2 * TINY.streams.many, "small": 2 * TINY.streams.few + TINY.streams.quiet_few},
    "tenants": {"large": 2 * TINY.tenants.unary, "small": 2 * TINY.tenants.unary},
    "workers": {"large": OFFERED, "small": OFFERED},
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_gives_its_rows_and_checks_every_job(part: str) -> None:
    report = await measure(rounds=1, sizes=TINY, only=[part])
    for row, values in report.rows.items():
        for side, found in values.items():
            assert len(found) == 1, (row, side)
            assert math.isfinite(found[0]), (row, side)
    assert report.checked == CHECKED[part]
    table = report.table().splitlines()
    assert max(map(len, table)) <= WIDTH
    for row in ROWS[part]:
        assert any(line.startswith(row) for line in table), row
