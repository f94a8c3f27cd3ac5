"""`mesh chat`."""

import click

from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.options import with_nats, with_question, with_sampling


@click.command("chat")
@with_question
@with_sampling
@with_nats
def command(question: Question, sampling: Sampling, nats: Nats) -> None:
    """Talk with a model; each turn sends the whole conversation.

    Answers stream. Ctrl-C stops an answer and keeps the chat; Ctrl-D leaves. Lines that begin with / are
    commands: /clear forgets the conversation, /exit leaves, /help lists them. With stdin from a pipe, every line
    is one turn, and only the answers go to stdout.

    \b
    Examples:
        mesh chat
        mesh chat --model demo --temperature 0 --system "You are a poet."
        printf 'My name is Ada.\\nWhat is my name?\\n' | mesh chat
    """
    from mesh.cli.ask import chat_action

    chat_action.run(nats, question, sampling)
