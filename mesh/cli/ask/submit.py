"""`mesh submit`."""

import click

from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.options import option, with_nats, with_question, with_raw_prompt, with_sampling


@click.command("submit")
@click.argument("prompt", required=False)
@option(
    "--id", "job", metavar="ID", show_default="random", help="The job's id; submitting it again returns the same job."
)
@with_question
@with_raw_prompt
@with_sampling
@with_nats
def command(
    prompt: str | None, job: str | None, question: Question, raw_prompt: bool, sampling: Sampling, nats: Nats
) -> None:
    """Queue a job and print its id on stdout.

    The job is stored before this returns, and runs even if no client waits for it. PROMPT is as in
    `mesh generate`; - or no PROMPT reads it from stdin. With --id, submitting again is safe: the job runs once.

    \b
    Examples:
        job=$(mesh submit --tier batch "Tell me a long story about a fox.")
        mesh result $job --wait
        mesh submit --id report-17 --model demo "What is a queue?"
    """
    from mesh.cli.ask import prompt as asking
    from mesh.cli.ask import submit_action
    from mesh.cli.terminal import loop

    text = asking.read_prompt(prompt)
    loop.run(submit_action.submit(nats, question, asking.inputs(text, question, raw_prompt), sampling, job))
