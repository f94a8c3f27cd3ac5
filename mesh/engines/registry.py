"""Creates an engine by its name, and imports no other engine."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from mesh.engines.base import Engine
from mesh.errors import ConfigError

_Factory = Callable[[str | None, int | None, Sequence[str], bool], Engine]


def names() -> tuple[str, ...]:
    """Return the built-in engines' names, for --help; any other engine is named "package.module:factory"."""
    return tuple(_BUILT_IN)


def create(
    name: str,
    *,
    model: str | None = None,
    max_model_len: int | None = None,
    engine_args: Sequence[str] = (),
    is_watched: bool = False,
) -> Engine:
    """Create an engine; the caller starts it.

    Args:
        name: one of `names()`, or "package.module:factory": a callable that takes `model`, `max_model_len`
            and `engine_args` (a mapping) by name and returns an Engine.
        max_model_len: tokens, prompt and output together; None: the engine's own.
        engine_args: "key=value" pairs. A value that is not JSON is a string.
        is_watched: the caller will read the engine's gauges; some engines keep them only then.

    Raises:
        ConfigError: the engine does not exist, or cannot use one of its settings.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name](model, max_model_len, engine_args, is_watched)
    if ":" in name:
        factory, args = _third_party(name), parse_engine_args(engine_args)
        try:
            return factory(model=model, max_model_len=max_model_len, engine_args=args)
        except TypeError as error:
            raise ConfigError(
                f"engine {name!r} cannot be made: {error}; its factory must take model, max_model_len and engine_args",
                key="engine",
            ) from error
    known = ", ".join(_BUILT_IN)
    raise ConfigError(f"engine {name!r} is unknown; give {known} or package.module:factory", key="engine")


def parse_engine_args(pairs: Sequence[str]) -> dict[str, object]:
    """Parse "key=value" pairs into a mapping. "a-b" is the same key as "a_b".

    Raises:
        ConfigError: a pair without "=" or without a key, or a key given twice.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not key or not equals:
            raise ConfigError(f"engine argument {pair!r}: write it as key=value", key=key or None)
        if key in found:
            raise ConfigError(f"engine argument {key} is given twice; give it once", key=key)
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _simulator(model: str | None, max_model_len: int | None, engine_args: Sequence[str], is_watched: bool) -> Engine:
    module = importlib.import_module("mesh.engines.simulator.engine")
    args = parse_engine_args(engine_args)
    for key, value in (("model", model), ("max_model_len", max_model_len)):
        if value is None:
            continue
        if args.setdefault(key, value) != value:
            raise ConfigError(f"{key} is given as {value!r} and as {args[key]!r}; give it once", key=key)
    return cast(Engine, module.SimulatorEngine(module.SimulatorSettings.from_engine_args(args)))


def _vllm(model: str | None, max_model_len: int | None, engine_args: Sequence[str], is_watched: bool) -> Engine:
    if model is None:
        raise ConfigError("the vllm engine needs a model: a path or a Hugging Face name", key="model")
    if model.startswith(("/", "./", "../", "~")) and not Path(model).expanduser().is_dir():  # vLLM fails much later
        raise ConfigError(f"--model {model} is no folder; give one with config.json, or a Hugging Face id", key="model")
    module = importlib.import_module("mesh.engines.vllm.engine")
    args: Mapping[str, object] = module.parse_engine_args(engine_args)
    gauges = importlib.import_module("mesh.engines.vllm.gauges").VllmGauges() if is_watched else None
    return cast(Engine, module.VllmEngine(module.VllmSettings(model, max_model_len, args, gauges=gauges)))


def _third_party(name: str) -> Callable[..., Engine]:
    module_name, _, factory_name = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        message = f"engine {name!r} cannot be loaded: {error}; is its package installed in this environment?"
        raise ConfigError(message, key="engine") from error
    if not callable(factory):
        raise ConfigError(f"engine {name!r} is not a callable that makes an engine", key="engine")
    return cast(Callable[..., Engine], factory)


_BUILT_IN: dict[str, _Factory] = {"simulator": _simulator, "vllm": _vllm}
