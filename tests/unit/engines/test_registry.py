"""An engine is created by its name, and no other engine is imported."""

import subprocess
import sys
import types
from typing import Any

import pytest

from mesh.engines import registry
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.errors import ConfigError


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package with a factory; the arguments that the factory was called with."""
    given: dict[str, Any] = {}

    def factory(**arguments: Any) -> SimulatorEngine:
        given.update(arguments)
        return SimulatorEngine()

    module = types.ModuleType("somebody_elses_engine")
    module.make = factory  # type: ignore[attr-defined]  # a module is made of attributes
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return given


def test_the_simulator_is_made_with_its_arguments() -> None:
    engine = registry.create(
        "simulator", model="tiny", max_model_len=512, engine_args=["capacity=3", "first-token-ms=0.5"]
    )
    assert (engine.info.name, engine.info.model) == ("simulator", "tiny")
    assert (engine.info.max_model_len, engine.info.capacity) == (512, 3)


def test_without_arguments_an_engine_has_its_own_defaults() -> None:
    assert registry.create("simulator").info == SimulatorEngine().info


def test_one_setting_given_twice_is_refused_unless_it_says_the_same() -> None:
    with pytest.raises(ConfigError, match="model is given as 'a' and as 'b'"):
        registry.create("simulator", model="a", engine_args=["model=b"])
    assert registry.create("simulator", model="a", engine_args=["model=a"]).info.model == "a"


def test_a_wrong_engine_argument_is_named() -> None:
    with pytest.raises(ConfigError, match="capacty=3"):
        registry.create("simulator", engine_args=["capacty=3"])


def test_an_unknown_engine_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="'simulater' is unknown; give simulator, vllm or"):
        registry.create("simulater")
    assert registry.names() == ("simulator", "vllm")


def test_vllm_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="needs a model") as caught:
        registry.create("vllm")
    assert caught.value.key == "model"


def test_vllm_is_made_with_its_arguments() -> None:
    pytest.importorskip("mesh.engines.vllm.engine")
    engine = registry.create("vllm", model="some/model", max_model_len=128, engine_args=["max_num_seqs=4"])
    assert type(engine).__name__ == "VllmEngine"


def test_a_third_party_engine_is_called_by_its_dotted_name(third_party: dict[str, Any]) -> None:
    engine = registry.create("somebody_elses_engine:make", model="m", engine_args=["size=3", "name=x"])
    assert isinstance(engine, SimulatorEngine)
    assert third_party == {"model": "m", "max_model_len": None, "engine_args": {"size": 3, "name": "x"}}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_package_here:make", "No module named"),
        ("somebody_elses_engine:missing", "has no attribute"),
        ("somebody_elses_engine:number", "not a callable"),
        ("somebody_elses_engine:", "cannot be loaded"),
        (":make", "cannot be loaded"),
    ],
)
def test_a_third_party_engine_that_cannot_be_had_is_a_config_error(
    third_party: dict[str, Any], name: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        registry.create(name)
    assert caught.value.key == "engine"


def test_values_are_json_and_strings_where_they_are_not() -> None:
    pairs = ["a=1", "b=1.5", "c=true", "d=null", 'e={"x": [1]}', "f=bare words", "g=", 'h="3"', "i-j=x=y"]
    assert registry.parse_engine_args(pairs) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": {"x": [1]},
        "f": "bare words",
        "g": "",
        "h": "3",
        "i_j": "x=y",
    }


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [(["capacity"], "'capacity': write it as key=value"), (["=3"], "key=value"), (["a-b=1", "a_b=2"], "twice")],
)
def test_a_pair_that_is_none_is_refused(pairs: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        registry.parse_engine_args(pairs)


def test_no_engine_is_imported_before_one_is_made() -> None:
    program = "import sys, mesh.engines.registry as r; r.names(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"mesh.engines.simulator.engine", "mesh.engines.vllm.engine", "vllm"} & set(loaded)
