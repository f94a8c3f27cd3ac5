"""Pure: this version, and the distribution that holds it. The only module that spells the distribution's name."""

__version__ = "0.1.0"

# The name on the package index. `mesh` there is another project; only the import name and the command are `mesh`.
DISTRIBUTION = "inference-mesh"


def extra(name: str) -> str:
    """The command that installs one of the distribution's extras, for a message about a missing library."""
    return f"pip install '{DISTRIBUTION}[{name}]'"
