"""`mesh demo`."""

import click

from mesh.cli.options import option


@click.command("demo")
@option("--engine", default="vllm", metavar="NAME", help="vllm, or simulator (no model; its text is meaningless).")
@option("--model", metavar="PATH|ID", show_default="the demo model that comes with mesh", help="Model to load.")
@option("--prompts", type=click.IntRange(1, 200), default=6, metavar="N", help="Questions, all asked at the same time.")
@option("--keep", is_flag=True, help="Keep everything running afterwards, until Ctrl-C.")
def command(engine: str, model: str | None, prompts: int, keep: bool) -> None:
    """Start a queue and a worker with a real model, and stream answers.

    It starts a NATS server with a temporary store on a free port, declares the mesh, and loads the model into one
    worker. Then it asks several questions at once and shows the answers as they stream. At the end it reads the
    Results from NATS, and prints the `nats` commands that do the same.

    It removes everything at the end. With --keep it runs until Ctrl-C: try those commands, or kill the worker and
    watch another take over.

    The demo model is 7 MB, comes with mesh, and runs on any CPU; it needs vLLM (`mesh install vllm`).

    \b
    Examples:
        mesh demo
        mesh demo --keep
        mesh demo --engine simulator --prompts 40
    """
    from mesh.cli.setup import demo_action
    from mesh.cli.terminal import loop

    order = demo_action.order(engine, model, prompts, keep)
    loop.run(demo_action.run(order), is_patient=True)
