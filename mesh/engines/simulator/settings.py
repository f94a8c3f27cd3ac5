"""The simulator's settings: its speed and its sizes. Pure."""

import dataclasses
import difflib
import math
from collections.abc import Mapping

from mesh.engines.simulator.text import PIECES
from mesh.errors import ConfigError

_LEAST: dict[str, int] = {
    "capacity": 1,
    "max_model_len": 2,  # a token of the prompt and one of the output
    "burst_tokens": 1,
    "embedding_dim": 1,
    "vocabulary_tokens": len(PIECES),  # an id for every piece of text
}
_MOST: dict[str, int] = {"vocabulary_tokens": 2**31, "embedding_dim": 65_536}


@dataclasses.dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """The simulator's settings; the defaults imitate a small model on one GPU.

    Raises:
        ConfigError: a number is out of range; the message names it, its value and the range.
    """

    model: str = "simulator"
    start_ms: float = 0.0  # until `start()` returns
    first_token_ms: float = 20.0  # from admission to the first token, for an empty prompt
    per_prompt_token_ms: float = 0.02  # added for every token of the prompt that is not cached
    between_tokens_ms: float = 5.0  # duration of a step of a batch of one
    per_batch_ms: float = 0.02  # added to the step for every other running job
    burst_tokens: int = 1  # most tokens of one job in one step; without delays, larger is faster
    capacity: int = 64  # jobs in the batch; further ones wait, first come, first served
    max_model_len: int = 8192  # tokens, prompt and output together
    prefix_cache_tokens: int = 65_536  # cached prompt tokens; 0: no cache
    vocabulary_tokens: int = 32_000
    embedding_dim: int = 16  # floats

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is str:
                continue
            least, most = _LEAST.get(field.name, 0), _MOST.get(field.name, math.inf)
            if not least <= value <= most or not math.isfinite(value):
                bound = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
                raise ConfigError(f"{field.name}={value!r}: give a number {bound}", key=field.name)

    @classmethod
    def from_engine_args(cls, args: Mapping[str, object]) -> "SimulatorSettings":
        """Return settings from `--engine-arg` pairs; a missing name keeps its default.

        Raises:
            ConfigError: a name is unknown, or a value has the wrong type or is out of range.
        """
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        for name, value in args.items():
            if name not in kinds:
                close = difflib.get_close_matches(name, kinds, n=1)
                fix = f"did you mean {close[0]}?" if close else f"known: {', '.join(kinds)}"
                raise ConfigError(f"{name}={value!r}: the simulator has no such setting; {fix}", key=name)
            if not _fits(value, kinds[name]):
                word = {str: "a string", int: "a whole number", float: "a number"}[kinds[name]]  # type: ignore[index]  # fields hold types, as annotations are evaluated here
                raise ConfigError(f"{name}={value!r}: give {word}", key=name)
        return cls(**args)  # type: ignore[arg-type]  # names and types were checked above


def _fits(value: object, kind: object) -> bool:
    if kind is str:
        return isinstance(value, str) and bool(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind is float and isinstance(value, float))
