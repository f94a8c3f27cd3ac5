"""The error for a missing optional library; it names the extra to install."""

import contextlib
from collections.abc import Iterator

from mesh.distribution import install_command
from mesh.errors import ConfigError


@contextlib.contextmanager
def needing(extra: str, key: str) -> Iterator[None]:
    """Wrap an import of the extra's libraries, for the option `--<key>`.

    Raises:
        ConfigError: a library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--{key} needs {error.name}, which is not installed; run {install_command(extra)}", key=key
        ) from None
