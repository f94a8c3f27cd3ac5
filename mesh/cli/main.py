"""The command line: the list of commands, and the mapping from errors to exit codes.

A command's module is imported only when the command runs or prints its help, so `mesh --help` answers at once.
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
        "demo": "Start a model, a queue and a worker, and watch answers stream.",
        "install": "Install vLLM into this Python.",
        "completion": "Print the shell script for Tab completion.",
    },
    "Serve": {
        "up": "Run NATS, the mesh and its workers on this machine.",
        "worker": "Run one worker: load a model and pull jobs.",
        "frontdoor": "Answer plain NATS requests, without a worker.",
        "reconcile": "Expire, cancel and hand back jobs, without a worker.",
        "init": "Show, and with --apply declare, what the mesh needs on NATS.",
        "tenant": "Manage accounts, keys and limits of tenants.",
    },
    "Ask": {
        "generate": "Ask a model, and watch the answer stream.",
        "chat": "Talk with a model.",
        "submit": "Queue a job and print its id.",
        "result": "Read, await or follow a job.",
        "cancel": "Cancel a queued or running job.",
    },
    "Steer": {
        "pause": "Stop starting a model's jobs, for a time or until resumed.",
        "resume": "Start a paused model's jobs again.",
        "drain": "Let workers finish their jobs and exit.",
    },
    "Look": {
        "status": "Show queues, workers, tenants and problems of the mesh.",
        "top": "Show the same live, with keys to steer the mesh.",
        "jobs": "List running and waiting jobs.",
        "job": "Show one job's history, and why it waits.",
        "tail": "Follow the tokens of one job, or of a tenant's jobs.",
        "audit": "Show the audit log of jobs and operators' commands.",
        "workers": "List live workers and their load.",
        "doctor": "Diagnose NATS, the mesh and this machine.",
        "dlq": "List, show, redrive or drop dead letters.",
    },
    "Prove it": {
        "replay": "Submit recorded requests again, here or to another mesh.",
        "bench": "Put load on a running mesh and measure it at the client.",
        "soak": "Run thousands of requests under faults and check every job's history.",
    },
}
_COMMANDS = {name: help for commands in _SECTIONS.values() for name, help in commands.items()}
# Each family is a folder. A command's options are in the module of its name, its action in NAME_action.
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
    """Imports a command's module when the command is used."""

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

    Every option can also be given as the environment variable shown beside it. MESH_DEBUG=1 shows tracebacks.

    \b
    Exit codes:
        0    done
        1    the job failed, was cancelled or expired
        2    wrong usage
        3    a setting cannot be used
        4    NATS cannot be reached
        5    the engine died
        130  Ctrl-C
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
        # The reader closed the pipe (`| head`). Without this, Python complains again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (click.Abort, KeyboardInterrupt):
        code = failure.INTERRUPTED
    except failure.SignalledError as error:
        code = failure.exit_code(error)
    except Exception as error:  # the outermost frame: every error becomes one line and an exit code
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
