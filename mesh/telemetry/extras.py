"""What to install where an optional library is missing. Used by whoever opens telemetry."""

import contextlib
from collections.abc import Iterator

from mesh.errors import ConfigError


@contextlib.contextmanager
def needing(extra: str, key: str) -> Iterator[None]:
    """Import in its context what the extra brings, for the option `--<key>`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--{key} needs {error.name}, which is not installed; run pip install 'mesh[{extra}]'", key=key
        ) from None
