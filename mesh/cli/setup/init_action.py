"""`mesh init`: the plan as a table, and its application."""

import json
from collections.abc import Sequence
from dataclasses import replace

from mesh.broker import topology
from mesh.broker.broker import open_broker
from mesh.broker.topology import Change
from mesh.cli.connecting import connect_options
from mesh.cli.option_values import Nats, TopologyOptions
from mesh.cli.setup.settings import wanted
from mesh.cli.terminal import render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.errors import TopologyError
from mesh.protocol.subjects import Names, check_token
from mesh.protocol.version import PROTOCOL


async def run(nats: Nats, models: Sequence[str], shape: TopologyOptions, is_applied: bool, as_json: bool) -> None:
    """Show the plan, and carry it out if asked to.

    Raises:
        TopologyError: it was to be applied, and something differs; what was missing is created all the same.
    """
    names = Names(nats.namespace)
    for model in models:
        check_token("model", model)
    async with open_broker(connect_options(nats), names) as broker:
        topology.check_server(broker.connection.server_version)
        settings = await wanted(broker, shape)
        settings = replace(settings, protocol=max(settings.protocol, PROTOCOL))
        changes = await topology.plan(broker, settings, models)
        _show(changes, is_applied, as_json)
        if is_applied:
            await topology.apply(broker.connection, changes)
    missing, changing, differing = (
        sum(1 for each in changes if each.verb == verb) for verb in ("create", "change", "differs")
    )
    if not as_json:
        render.note(_summary(missing, changing, differing, is_applied))
    if is_applied and differing:
        raise TopologyError(
            f"{differing} things differ from what was asked and stay as they are; ask for what is there, "
            "change them with `nats stream edit` or `nats consumer edit`, or delete them and run this again"
        )


def _show(changes: Sequence[Change], is_applied: bool, as_json: bool) -> None:
    if as_json:
        shown = [{"verb": e.verb, "kind": e.kind, "name": e.name, "detail": e.detail} for e in changes]
        render.say_json(json.dumps({"applied": is_applied, "changes": shown}))
        return
    columns = (
        TableColumn("plan", is_state=True),
        TableColumn("kind"),
        TableColumn("name"),
        TableColumn("detail", least=12, is_prose=True),
    )
    rows = [(each.verb, each.kind, each.name, each.detail) for each in changes]
    show_table(columns, rows)


def _summary(missing: int, changing: int, differing: int, is_applied: bool) -> str:
    if is_applied:
        return f"created {missing}, changed {changing}." if changing else f"created {missing}."
    text = "nothing to create."
    if missing or changing:
        text = f"{missing} to create{f', {changing} to change' if changing else ''}; nothing was changed."
    if differing:
        text += f" {differing} differ and will stay as they are."
    if missing or changing:
        text += " Add --apply to do it." if changing else " Add --apply to create them."
    return text
