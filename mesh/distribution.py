"""The name of this package on PyPI, for hints that tell how to install an extra. Pure.

The import name and the command are `mesh`; the PyPI project of that name is another one.
"""

DISTRIBUTION = "inference-mesh"


def install_command(extra: str) -> str:
    """Return the shell command that installs an extra, such as `metrics`."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
