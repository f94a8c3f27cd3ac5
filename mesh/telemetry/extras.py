"""Names the extra to install where an optional library is missing. Called before telemetry or a full-screen command."""

import contextlib
from collections.abc import Iterator

from mesh._version import extra
from mesh.errors import ConfigError


@contextlib.contextmanager
def needing(name: str, key: str, what: str = "") -> Iterator[None]:
    """Import in its context the libraries of extra `name`, for the option `--<key>` or for `what`.

    Raises:
        ConfigError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"{what or f'--{key}'} needs {error.name}, which is not installed; run {extra(name)}"
        raise ConfigError(text, key=key) from None
