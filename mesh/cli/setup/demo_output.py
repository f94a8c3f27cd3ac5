"""Shows the answers of `mesh demo` as they stream, then figures, then the stored Results."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from mesh.cli.ask.answer import tokens_per_s
from mesh.cli.serve.model_names import DEMO_NAME
from mesh.cli.terminal import render
from mesh.cli.terminal.live import Pane, drawn_panes
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.cli.terminal.text import clip, one_line
from mesh.client.assembly import Restarted
from mesh.client.client import Client
from mesh.client.job import Job
from mesh.protocol.messages import Result
from mesh.protocol.subjects import Names

FRAME_S = 0.08
QUIET_S = 1.0  # between lines of progress where nobody watches a terminal
_COLUMNS = (
    TableColumn("job"),
    TableColumn("status", is_state=True),
    TableColumn("tokens", is_number=True),
    TableColumn("first token ms", is_number=True),
    TableColumn("tokens/s", is_number=True),
)


async def ask_all(client: Client, model: str, questions: Mapping[str, str], max_tokens: int) -> list[Result]:
    """Submit every question at once, by its job's id, and show the answers while they come."""
    render.say(f"asking {len(questions)} questions at once:\n")
    panes = {id: Pane(f"{id}  {question}") for id, question in questions.items()}
    submits = [
        client.submit(model, [{"role": "user", "content": question}], id=id, temperature=0, max_tokens=max_tokens)
        for id, question in questions.items()
    ]
    jobs = await asyncio.gather(*submits)
    watching = asyncio.create_task(_watch(list(panes.values())), name="mesh-watch")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_follow(job, panes[job.id])) for job in jobs]
        return [task.result() for task in tasks]
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def show_results(client: Client, results: Sequence[Result]) -> None:
    """Figures, and the stored Results read back by their keys."""
    rows = []
    for each in results:
        speed, first_ms = tokens_per_s(each), each.timing.first_token_ms
        rows.append(
            (
                each.id,
                each.status,
                str(each.usage.completion_tokens),
                "-" if first_ms is None else str(first_ms),
                "-" if speed is None else f"{speed:.0f}",
            )
        )
    render.say()
    show_table(_COLUMNS, rows)
    names = Names()
    render.say(f"\nread back from the bucket {names.results_bucket}:\n")
    for each in results:
        stored = await client.result(each.id)
        text = one_line(str(stored.text))
        render.say(clip(f"{stored.tenant}.{stored.id}  {stored.status}  {text}", render.width() - 1))


def show_commands(url: str, job: str, names: Names, is_kept: bool) -> None:
    """The lines that do the same without mesh."""
    nats = f"nats --server {url}"
    while_up = "try it from another terminal; Ctrl-C ends it" if is_kept else "with --keep it stays, for you to try"
    render.say(f"\nthe same with the nats command line ({while_up}):\n")
    for line in (
        f"{nats} kv get {names.results_bucket} default.{job} --raw",
        f"{nats} stream view {names.events_stream}",
        f"{nats} consumer report {names.requests_stream}",
        f"{nats} sub '{names.ns}.live.default.>'",
        f"{nats} req {names.request(DEMO_NAME, 'standard', 'default', '0')} "
        '\'{"id": "mine", "prompt": "Once upon a time"}\'',
    ):
        render.say(f"    {line}")
    if is_kept:
        render.say("\nand with mesh:\n")
        render.say(f"    mesh chat --nats {url}")
        render.say(f"    mesh workers --nats {url}")


async def _follow(job: Job, pane: Pane) -> Result:
    async for delta in job:
        if isinstance(delta, Restarted):
            pane.text, pane.tokens = "", 0
        else:
            pane.text += delta.text
            pane.tokens += len(delta.token_ids)
    result = await job
    pane.is_over = True
    if not render.is_terminal():
        render.say(f"{pane.title}\n{pane.text}\n")
    return result


async def _watch(panes: list[Pane]) -> None:
    """Until it is cancelled: a picture on a terminal, a line now and then elsewhere."""
    if not render.is_terminal():
        while True:
            await asyncio.sleep(QUIET_S)
            over = sum(1 for each in panes if each.is_over)
            render.event(f"{over} of {len(panes)} answered, {sum(each.tokens for each in panes)} tokens")
    with drawn_panes(panes) as draw:
        try:
            while True:
                draw()
                await asyncio.sleep(FRAME_S)
        finally:
            draw()
