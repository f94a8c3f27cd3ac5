"""`mesh chat`: a conversation. On the blocking client: the terminal's own line editor blocks as well."""

import contextlib
import secrets
import sys
from typing import Any

from mesh.cli.ask.answer import check
from mesh.cli.ask.prompt import request_fields
from mesh.cli.connecting import connect_options, pick_model
from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.terminal import render
from mesh.client.assembly import Restarted
from mesh.client.blocking import BlockingClient, BlockingJob, connect
from mesh.client.request_fields import MessageDict
from mesh.errors import JobError, MeshError, RequestError
from mesh.protocol.subjects import check_tier

HELP = "/clear forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer"
CANCEL_S = 5.0


def run(nats: Nats, question: Question, sampling: Sampling) -> None:
    """Talk until the user leaves.

    Raises:
        MeshError: NATS cannot be reached, or there is no model to talk with.
    """
    options = connect_options(nats)
    with connect(options=options, tenant=question.tenant, namespace=nats.namespace) as client:
        model = pick_model(question.model, [] if question.model is not None else client.workers())
        chat = Chat(client, model, question, request_fields(sampling))
        if sys.stdin.isatty():
            import readline  # noqa: F401  # gives input() a line editor and a history

            render.note(f"talking with {model}; {HELP}")
        with contextlib.suppress(EOFError):
            while chat.take(_read_line()):
                pass


class Chat:
    """A conversation so far."""

    def __init__(self, client: BlockingClient, model: str, question: Question, fields: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._tier = check_tier(question.tier)
        # One session: its turns prefer the worker that has the beginning in its cache.
        self._fields = fields | {"session": secrets.token_hex(8)}
        self._first: list[MessageDict] = [{"role": "system", "content": question.system}] if question.system else []
        self._turns: list[MessageDict] = []

    def __repr__(self) -> str:
        return f"<Chat with {self._model}, {len(self._turns)} turns>"

    def take(self, line: str) -> bool:
        """Act on a line of the user; whether the chat goes on."""
        text = line.strip()
        match text:
            case "":
                pass
            case "/exit" | "/quit":
                return False
            case "/clear":
                self._turns.clear()
                render.note("the conversation is forgotten")
            case _ if text.startswith("/"):
                render.note(HELP)
            case _:
                self._ask(text)
        return True

    def _ask(self, text: str) -> None:
        turns: list[MessageDict] = [*self._turns, {"role": "user", "content": text}]
        try:
            answer = self._answer(turns)
        except (JobError, RequestError) as error:
            render.complain(f"{error}; the question is forgotten, /clear forgets the rest")
        except MeshError as error:
            render.complain(f"{error}; ask again")
        else:
            self._turns = [*turns, {"role": "assistant", "content": answer}]

    def _answer(self, turns: list[MessageDict]) -> str:
        """Stream the answer to the conversation; it is what was shown, also if it was stopped."""
        job = self._client.submit(self._model, [*self._first, *turns], tier=self._tier, **self._fields)
        shown = ""
        try:
            for delta in job:
                if isinstance(delta, Restarted):
                    render.note("\n(another worker begins the answer anew)")
                    shown = ""
                else:
                    render.write(delta.text)
                    shown += delta.text
            check(job.result())
        except KeyboardInterrupt:
            _stop(job)
        finally:
            if shown and not shown.endswith("\n"):
                render.write("\n")
        return shown


def _stop(job: BlockingJob) -> None:
    try:
        job.cancel(CANCEL_S)
    except MeshError as error:
        render.note(f"\n(the answer could not be stopped: {error})")
    else:
        render.note("\n(stopped)")


def _read_line() -> str:
    """The user's next line; a Ctrl-C at the prompt only clears it.

    Raises:
        EOFError: there is none.
    """
    while True:
        try:
            if sys.stdin.isatty():
                return input("> ")
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            render.say()
            continue
        if not line:
            raise EOFError
        return line
