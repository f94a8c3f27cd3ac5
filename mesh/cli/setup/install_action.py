"""`mesh install vllm`."""

from typing import cast

from mesh.cli.terminal import render
from mesh.engines.vllm import install
from mesh.errors import ConfigError

NEXT = "next: `mesh demo`, or `mesh up --model PATH|ID`"


def run(backend: str, is_dry: bool) -> None:
    """Install vLLM, showing how.

    Raises:
        ConfigError: it cannot be done, or a command failed.
    """
    found = install.installed()
    if found is not None and not is_dry:
        render.say(f"{found} is installed already; {NEXT}")
        return
    commands = install.plan(install.inspect_machine(), cast(install.Backend, backend))
    for command in commands:
        render.say(f"$ {command}")
        if is_dry:
            continue
        code = install.run([command])
        if code:
            raise ConfigError(f"the command above failed with exit code {code}; its output says why")
    if is_dry:
        render.note("nothing was run; leave out --dry-run to run this")
        return
    found = install.installed()
    if found is None:
        raise ConfigError("the commands ran, and vLLM is still not there; is this the right Python?")
    render.say(f"installed {found}; {NEXT}")
