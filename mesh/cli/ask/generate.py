"""`mesh generate`."""

import click

from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.options import option, with_json, with_nats, with_question, with_raw_prompt, with_sampling


@click.command("generate")
@click.argument("prompt", required=False)
@with_question
@with_raw_prompt
@with_sampling
@option("--no-stream", is_flag=True, help="Print the answer once it is whole.")
@with_json
@with_nats
def command(
    prompt: str | None,
    question: Question,
    raw_prompt: bool,
    sampling: Sampling,
    no_stream: bool,
    as_json: bool,
    nats: Nats,
) -> None:
    """Ask a model, and watch the answer stream.

    PROMPT is sent as a chat message; - or nothing reads it from stdin. A model without a chat template takes
    --raw-prompt. The answer goes to stdout, one line of figures to stderr. If the worker dies, another goes on
    where it stopped. Ctrl-C cancels the job.

    Should another worker have to begin again, with other words, a note on stderr says that what was printed no
    longer stands; --no-stream and --json print only what counts in the end.

    \b
    Examples:
        mesh generate "Tell me a story about a fox."
        mesh generate --model demo --temperature 0 --max-tokens 40 "What is 7 plus 5?"
        git diff | mesh generate --system "Summarize this change." -
        mesh generate --json "Spell river." | jq -r .text
    """
    from mesh.cli.ask import generate_action
    from mesh.cli.ask import prompt as asking
    from mesh.cli.terminal import loop

    text = asking.read_prompt(prompt)
    loop.run(
        generate_action.generate(
            nats, question, asking.inputs(text, question, raw_prompt), sampling, no_stream, as_json
        )
    )
