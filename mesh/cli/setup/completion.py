"""`mesh completion`."""

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the shell script that completes `mesh` on Tab.

    It completes commands and options, and the names of models, workers and tenants. It asks the mesh of --nats or
    MESH_NATS for names, for a second at most.

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
