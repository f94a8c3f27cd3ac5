"""The package's version and the name of its distribution. Only this module has that name. Pure."""

__version__ = "0.1.0"

# The name on the package index. `mesh` there is another project; only the import name and the command are `mesh`.
DISTRIBUTION = "inference-mesh"


def extra(name: str) -> str:
    """Return the command that installs an extra, for the message about a missing library."""
    return f"pip install '{DISTRIBUTION}[{name}]'"
