"""Whether the settings and arguments of a container are ones that `mesh` takes."""

import os
import re
from collections.abc import Mapping, Sequence
from unittest import mock

import click

from mesh.cli.main import cli

_OF_SERVERS = {"MESH_SECRETS", "MESH_OWNER", "MESH_DEBUG"}


def settings_of(value: str) -> str:
    """A value of compose.yaml as it is where nothing is set: `${NAME:-default}` becomes its default."""
    return re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda found: found[1] or "", value)


def click_accepts(arguments: Sequence[str], environment: Mapping[str, str]) -> click.Context:
    """Parse as `mesh` does, and run nothing. Every variable must be one that this command reads.

    Raises:
        click.ClickException: it is refused.
    """
    context = click.Context(cli, info_name="mesh")
    name, *rest = arguments
    command = cli.get_command(context, name)
    assert command is not None, f"mesh has no command {name}"
    variables = {option.envvar for option in command.params if isinstance(option, click.Option)}
    unknown = set(environment) - variables - _OF_SERVERS
    assert unknown == set(), f"mesh {name} reads no {unknown}"
    own = {key: value for key, value in os.environ.items() if not key.startswith("MESH_")}
    with mock.patch.dict(os.environ, {**own, **environment}, clear=True):
        return command.make_context(name, list(rest), parent=context)
