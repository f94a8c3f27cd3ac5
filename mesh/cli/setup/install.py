"""`mesh install`."""

import click

from mesh.cli.options import option


@click.command("install")
@click.argument("what", type=click.Choice(["vllm"]))
@option("--backend", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto looks for a GPU.")
@option("--dry-run", is_flag=True, help="Show the commands and run none.")
def command(what: str, backend: str, dry_run: bool) -> None:
    """Install vLLM into the Python that runs this.

    Shows each command before it runs it. For a CPU it takes vLLM's CPU build with the small torch; for a GPU
    vLLM with the torch that fits the driver. What is installed already is left alone.

    \b
    Examples:
        mesh install vllm
        mesh install vllm --backend cpu --dry-run
    """
    from mesh.cli.setup import install_action

    install_action.run(backend, dry_run)
