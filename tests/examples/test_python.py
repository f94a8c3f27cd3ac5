"""examples/plain_nats.py: the protocol with stock nats-py, nothing of ours."""

import sys
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, check_front_door, check_output, output_after_a_cut, output_of
from tests.running import RunningMesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
SOURCE = (EXAMPLES / "plain_nats.py").read_text().replace("nats://127.0.0.1:4222", "URL")


async def test_it_streams_reads_the_stored_result_and_cancels(demo: RunningMesh, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SOURCE.replace("URL", demo.url), "demo"]
    out = await output_of(command, tmp_path)
    await check_output(demo, out)
    check_front_door(out)


async def test_what_it_misses_while_its_connection_breaks_comes_from_the_journal(
    demo: RunningMesh, tmp_path: Path
) -> None:
    out = await output_after_a_cut(demo, [sys.executable, "-c", SOURCE, "demo"], tmp_path)
    await check_output(demo, out)
