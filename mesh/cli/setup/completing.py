"""Shell completion of names that the mesh knows. click calls it on Tab.

Imports nothing but click until it is asked: every command's module loads this one.
"""

import click
from click.shell_completion import CompletionItem

from mesh.cli.option_values import TIERS


def targets(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models, and once a slash is typed their tiers."""
    model, slash, _ = incomplete.partition("/")
    if slash:
        return _matching([f"{model}/{tier}" for tier in TIERS], incomplete)
    return models(context, parameter, incomplete)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models whose queue is declared."""
    return _matching(_ask(context, "models"), incomplete)


def workers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Workers alive."""
    return _matching(_ask(context, "workers"), incomplete)


def tenants(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tenants that have jobs."""
    return _matching(_ask(context, "tenants"), incomplete)


def _matching(found: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(each) for each in found if each.startswith(incomplete)]


def _ask(context: click.Context, kind: str) -> list[str]:
    from mesh.cli.setup import completion_action

    return completion_action.ask(context, kind)
