"""`mesh install`."""

import click

from mesh.cli.options import option


@click.command("install")
@click.argument("what", type=click.Choice(["vllm"]))
@option(
    "--backend",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Build to install; auto looks for a GPU.",
)
@option("--dry-run", is_flag=True, help="Show the commands without running them.")
def command(what: str, backend: str, dry_run: bool) -> None:
    """Install vLLM into the Python that runs this command.

    It shows each command before running it. For a CPU it installs vLLM's CPU build with the small torch; for a GPU,
    vLLM with the torch that fits the driver. It leaves installed packages alone.

    \b
    Examples:
        mesh install vllm
        mesh install vllm --backend cpu --dry-run
    """
    from mesh.cli.setup import install_action

    install_action.run(backend, dry_run)
