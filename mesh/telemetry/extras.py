"""The error for a missing optional library; it names the extra to install."""

import contextlib
from collections.abc import Iterator

from mesh._version import extra
from mesh.errors import ConfigError


@contextlib.contextmanager
def needing(name: str, key: str, what: str = "") -> Iterator[None]:
    """Wrap an import of the libraries of extra `name`, for the option `--<key>` or for the feature `what`.

    Raises:
        ConfigError: a library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"{what or f'--{key}'} needs {error.name}, which is not installed; run {extra(name)}"
        raise ConfigError(text, key=key) from None
