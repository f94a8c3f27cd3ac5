"""Every Python block of our pages, and every Python program of examples/, runs as it stands."""

import asyncio
import sys
from pathlib import Path

import pytest

from mesh.engines.simulator.settings import SimulatorSettings
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.running import MODEL, RunningMesh
from tests.tenancy import running_tenancy

BLOCKS = [block for page in PAGES for block in blocks(page, "python")]
TENANTS = [block for block in BLOCKS if block.page == "docs/howto/tenants.md"]
EXAMPLES = ROOT / "examples"
URL = "nats://127.0.0.1:4222"
DEADLINE_S = 30


async def output_of(source: str, url: str, folder: Path, *arguments: str) -> str:
    """The output of a program of ours, pointed at the test's server."""
    assert URL in source
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", source.replace(URL, url), *arguments, stdout=pipe, stderr=pipe, cwd=folder
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0, err.decode()
    assert err == b""
    return out.decode()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in TENANTS], ids=str)
async def test_a_block_runs_as_pasted(demo: RunningMesh, tmp_path: Path, block: Block) -> None:
    assert await output_of(block.code, demo.url, tmp_path)


@pytest.mark.parametrize("block", TENANTS, ids=str)
async def test_a_block_of_a_tenant_runs_in_the_tenants_account(tmp_path: Path, block: Block) -> None:
    async with running_tenancy(tmp_path, ["acme"]) as tenancy:
        await tenancy.start_worker(SimulatorSettings(model=MODEL, first_token_ms=1, between_tokens_ms=1))
        source = block.code.replace('"demo"', f'"{MODEL}"')
        assert await output_of(source, tenancy.url, tmp_path)


async def test_the_examples_run(demo: RunningMesh, tmp_path: Path) -> None:
    stream, forget, plain = [
        (EXAMPLES / name).read_text() for name in ("stream.py", "fire_and_forget.py", "plain_nats.py")
    ]
    assert "finished" in await output_of(stream, demo.url, tmp_path)
    job = (await output_of(forget, demo.url, tmp_path)).strip()
    assert "finished" in await output_of(forget, demo.url, tmp_path, job)
    assert "finished" in await output_of(plain, demo.url, tmp_path, "demo")
