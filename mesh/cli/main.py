"""The command line: the list of commands, and the way from an error to an exit code.

A command's module is imported when the command is run or asked for its help, and not before: `mesh --help` is
to answer at once.
"""

import importlib
import os
import sys

import click

from mesh import __version__
from mesh.cli.terminal import failure, render
from mesh.errors import MeshError

_SECTIONS: dict[str, dict[str, str]] = {
    "Try it": {
        "demo": "A model, a queue and a worker in one go: watch answers stream.",
        "install": "Install vLLM into this Python.",
        "completion": "The script that completes mesh at the press of Tab.",
    },
    "Serve": {
        "up": "NATS, the mesh and its workers on this machine, in one process tree.",
        "worker": "One worker: a model that pulls jobs from a mesh.",
        "frontdoor": "Answers to plain NATS requests, without a worker.",
        "reconcile": "What keeps a mesh in order while no worker is there to do it.",
        "init": "Show, and with --apply declare, what the mesh needs on NATS.",
        "tenant": "Accounts and keys for the tenants of a mesh.",
    },
    "Ask": {
        "generate": "Ask a model, and watch the answer stream.",
        "chat": "Talk with a model.",
        "submit": "Queue a job and leave.",
        "result": "Read, await or follow a job.",
        "cancel": "Stop a job, wherever it is.",
    },
    "Steer": {
        "pause": "Let no more jobs of a model start, for a while or until resumed.",
        "resume": "Let the jobs of a paused model start again.",
        "drain": "Have workers finish what they run, and end.",
    },
    "Look": {
        "status": "The whole mesh: what waits, what runs, who works, and what is wrong.",
        "top": "The same live, and keys to steer it with.",
        "jobs": "The jobs that run and that wait.",
        "job": "The whole life of one job, and why it waits.",
        "tail": "Tokens as they are made, of one job or of all of a tenant.",
        "audit": "What happened to jobs, and what operators did: who, when and what.",
        "workers": "The workers alive, and what they do.",
        "doctor": "Whatever is wrong with NATS, the mesh or this machine, and how to mend it.",
        "dlq": "Jobs that were given up: look, run them again, remove them.",
    },
    "Prove it": {
        "replay": "Submit recorded requests again, here or to another mesh.",
        "bench": "Load on a running mesh, and what its users see of it.",
        "soak": "Thousands of requests under faults, and a judge of everything that was seen.",
    },
}
_COMMANDS = {name: help for commands in _SECTIONS.values() for name, help in commands.items()}
# Each family is a folder here; a command is the module of its name in it, and what it does the one with `_action`.
_FAMILIES = {
    "ask": ("generate", "chat", "submit", "result"),
    "jobs": ("jobs", "job", "tail", "cancel"),
    "queues": ("pause", "resume"),
    "workers": ("workers", "drain"),
    "deadletters": ("dlq",),
    "top": ("top",),
    "serve": ("up", "worker", "frontdoor", "reconcile"),
    "tenants": ("tenant",),
    "audit": ("audit",),
    "health": ("status", "doctor"),
    "load": ("bench", "soak", "replay"),
    "setup": ("init", "install", "demo", "completion"),
}
_HOMES = {name: f"mesh.cli.{family}.{name}" for family, names in _FAMILIES.items() for name in names}


class _Commands(click.Group):
    """Commands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_HOMES[cmd_name])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `mesh demo`. `mesh COMMAND --help` explains each command, with examples.",
)
@click.version_option(__version__, message="mesh %(version)s")
def cli() -> None:
    """Language models behind a queue that loses nothing: NATS JetStream in front, vLLM behind.

    Every option can also be given as the environment variable shown beside it. Exit codes: 0 done, 1 the job
    failed, was cancelled or expired, 2 wrong usage, 3 a setting cannot be used, 4 NATS cannot be reached,
    5 the engine died, 130 Ctrl-C. MESH_DEBUG=1 shows tracebacks.
    """


def main() -> None:
    """The `mesh` script and `python -m mesh`."""
    try:
        code = cli.main(prog_name="mesh", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = failure.USAGE
    except click.ClickException as error:
        code = _report_usage(error)
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (click.Abort, KeyboardInterrupt):
        code = failure.INTERRUPTED
    except failure.SignalledError as error:
        code = failure.exit_code(error)
    except Exception as error:  # the outermost frame: whatever it is, one line and an exit code
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _report_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    see = f"; see `{context.command_path} --help`" if context is not None else ""
    render.complain(" ".join(error.format_message().rstrip(".").split()) + see)
    return error.exit_code


def _report(error: Exception) -> int:
    if failure.is_debugging():
        render.note(failure.trace(error).rstrip())
    render.complain(failure.message(error))
    if not isinstance(error, MeshError):
        return 1
    return failure.exit_code(error)
