"""The durability profiles of `mesh init`: what they declare, and what contradicts them."""

import json
from dataclasses import fields

import pytest

from mesh.cli.option_values import TopologyOptions
from mesh.cli.setup.settings import of_profile
from mesh.errors import ConfigError
from mesh.server import EmbeddedServer
from tests.cli.conftest import Cli, cli

__all__ = ["cli"]  # the fixture


def shape(**given: object) -> TopologyOptions:
    """Return the settings that `mesh init` derives from these options alone."""
    return TopologyOptions(**{**dict.fromkeys(each.name for each in fields(TopologyOptions)), **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("profile", "given", "events"),
    [
        (None, {}, None),
        ("standard", {}, "file"),
        ("strict", {}, "memory"),
        ("strict", {"events_storage": "file"}, "file"),
        ("standard", {"events_storage": "memory"}, "memory"),
    ],
)
def test_a_profile_chooses_what_was_not_given(profile: str | None, given: dict[str, object], events: str) -> None:
    assert of_profile(shape(**given), profile).events_storage == events


def test_strict_with_requests_in_memory_is_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="--storage memory"):
        of_profile(shape(storage="memory"), "strict")


async def test_strict_keeps_events_in_memory_and_all_else_on_disk(server: EmbeddedServer, cli: Cli) -> None:
    applied = cli.run("init", "--apply", "--profile", "strict", env={"MESH_NATS": server.url})
    assert applied.returncode == 0, applied.stderr
    planned = cli.run("init", "--json", env={"MESH_NATS": server.url})
    assert {each["verb"] for each in json.loads(planned.stdout)["changes"]} == {"keep"}
    other = cli.run("init", "--profile", "standard", "--apply", env={"MESH_NATS": server.url})
    assert other.returncode == 3
    assert "storage: memory, wanted file" in " ".join(other.stdout.split())
