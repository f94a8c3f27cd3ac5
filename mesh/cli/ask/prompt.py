"""From the command line to a request: its prompt and its fields. Called by `mesh generate`, `chat` and `submit`."""

import sys
from dataclasses import asdict
from typing import Any

import click

from mesh.cli.option_values import Question, Sampling
from mesh.client.request_fields import MessageDict
from mesh.clock import SYSTEM
from mesh.errors import ConfigError

Prompt = str | list[MessageDict]  # bare text, or the turns of a chat


def read_prompt(given: str | None) -> str:
    """The prompt of the command line, or all of stdin.

    Raises:
        UsageError: there is none, and stdin is a terminal.
    """
    if given not in (None, "-"):
        return given or ""
    if given is None and sys.stdin.isatty():
        raise click.UsageError("no prompt; give it as an argument, or - to type it", click.get_current_context())
    return sys.stdin.read().rstrip("\n")


def inputs(text: str, question: Question, is_raw: bool) -> Prompt:
    """The request's input: chat messages, or bare text.

    Raises:
        ConfigError: bare text with a system message.
    """
    if not is_raw:
        turns: list[MessageDict] = [{"role": "user", "content": text}]
        if question.system:
            turns.insert(0, {"role": "system", "content": question.system})
        return turns
    if question.system:
        raise ConfigError("--raw-prompt has no place for --system; put it into the prompt", key="system")
    return text


def request_fields(sampling: Sampling) -> dict[str, Any]:
    """The request's other fields, those that were given."""
    given = asdict(sampling)
    deadline_s = given.pop("deadline")
    given["stop"] = list(sampling.stop) or None
    if deadline_s is not None:
        given["deadline_unix_ms"] = SYSTEM.wall_unix_ms() + int(deadline_s * 1000)
    return {key: value for key, value in given.items() if value is not None}
