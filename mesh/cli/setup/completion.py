"""`mesh completion`."""

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that completes `mesh` at the press of Tab.

    It completes commands and options, and asks the mesh that --nats or MESH_NATS names for models, workers and
    tenants where one is wanted. What does not answer within a second is left out in silence.

    \b
    Examples:
        eval "$(mesh completion bash)"                      # in ~/.bashrc
        eval "$(mesh completion zsh)"                       # in ~/.zshrc, after compinit
        mesh completion fish > ~/.config/fish/completions/mesh.fish
    """
    from click.shell_completion import get_completion_class

    from mesh.cli.terminal import render

    kind = get_completion_class(shell)
    assert kind is not None
    render.write(kind(context.find_root().command, {}, "mesh", "_MESH_COMPLETE").source())
