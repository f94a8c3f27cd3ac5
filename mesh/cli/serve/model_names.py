"""Which model is meant: the one the repository ships, and the names models are served under."""

from pathlib import Path

import mesh
from mesh.cli.option_values import EngineChoice
from mesh.errors import ConfigError
from mesh.protocol.subjects import check_token, to_token

DEMO_NAME = "demo"


def demo_model() -> Path:
    """The folder of the demo model: in the installed package, or in the checkout the package lies in.

    Raises:
        ConfigError: in neither.
    """
    package = Path(mesh.__file__).parent
    for folder in (package / "_demo_model", package.parent / "examples" / "demo_model" / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise ConfigError(
        "the demo model is not in this installation; give another one with --model, "
        "or try `mesh demo --engine simulator`",
        key="model",
    )


def served_name(choice: EngineChoice) -> str:
    """The name clients ask for.

    Raises:
        InvalidRequestError: a name was given that cannot be part of a subject.
    """
    if choice.name is not None:
        return check_token("name", choice.name)
    if choice.model is None:
        return to_token(choice.engine.partition(":")[0])
    return DEMO_NAME if _is_demo_model(choice.model) else to_token(choice.model)


def _is_demo_model(model: str) -> bool:
    try:
        return Path(model).resolve() == demo_model().resolve()
    except (ConfigError, OSError):
        return False
