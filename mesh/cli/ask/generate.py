"""`mesh generate`."""

import click

from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.options import option, with_json, with_nats, with_question, with_raw_prompt, with_sampling


@click.command("generate")
@click.argument("prompt", required=False)
@with_question
@with_raw_prompt
@with_sampling
@option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
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

    PROMPT is sent as a chat message; - or no PROMPT reads it from stdin. A model without a chat template needs
    --raw-prompt. The answer goes to stdout, one line of figures to stderr. Ctrl-C cancels the job.

    If the worker dies, another continues after the last token. If it must restart with different text, a note on
    stderr says that the text above no longer counts.

    --no-stream and --json print only the final answer.

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
