"""examples/plain_nats.py: the protocol with stock nats-py, nothing of ours."""

import sys

import pytest

from tests.examples.programs import EXAMPLES, check_front_door, check_output, output_after_a_cut, output_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
SOURCE = (EXAMPLES / "plain_nats.py").read_text().replace("nats://127.0.0.1:4222", "URL")


async def test_it_streams_reads_the_stored_result_and_cancels(demo, tmp_path):
    command = [sys.executable, "-c", SOURCE.replace("URL", demo.url), "demo"]
    out = await output_of(command, tmp_path)
    await check_output(demo, out)
    check_front_door(out)


async def test_what_it_misses_while_its_connection_breaks_comes_from_the_journal(demo, tmp_path):
    out = await output_after_a_cut(demo, [sys.executable, "-c", SOURCE, "demo"], tmp_path)
    await check_output(demo, out)
