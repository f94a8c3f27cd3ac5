"""Writes docs/reference from the code: `python docs/generate.py`. With --check it fails on a stale page instead.

Names, defaults and texts come from the code itself: its syntax trees, its click commands, its metrics. A page is the
same under every supported version of Python, click and prometheus_client.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from mesh.errors import MeshError

REFERENCE = Path(__file__).parent / "reference"
COMMAND = "python docs/generate.py"
HEAD = f"<!-- Written by `{COMMAND}` from the code. Do not edit. -->\n"
SHARED = 12  # an option that so many commands have in the same words is described once


def main() -> None:
    """Write the pages that differ, or only name them."""
    stale = [name for name, text in pages().items() if read(name) != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale: {', '.join(stale)}; run `{COMMAND}`" if stale else 0)
    for name in stale:
        (REFERENCE / name).write_text(pages()[name])
        sys.stdout.write(f"wrote docs/reference/{name}\n")


def read(name: str) -> str:
    """A page as it stands, "" if it is missing."""
    path = REFERENCE / name
    return path.read_text() if path.exists() else ""


@cache
def pages() -> dict[str, str]:
    """Every page of the reference, by file name."""
    made = {
        "python.md": python_page(),
        "cli.md": cli_page(),
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "errors.md": errors_page(),
    }
    return {name: HEAD + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" for name, text in made.items()}


# Markdown.


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar within a cell is escaped."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines) + "\n"


def code(text: str) -> str:
    """Inline code; nothing for nothing."""
    return f"`{text}`" if text else ""


def prose(doc: str) -> str:
    """A docstring as Markdown: sections become lists, code keeps its indentation."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(doc)):
        lines = paragraph.splitlines()
        if re.fullmatch(r"(Args|Returns|Raises|Source):", lines[0]):
            found.append(f"{lines[0][:-1]}:\n\n{items(lines[1:])}")
        elif lines[0].startswith(("    ", "async with ", "with ")):
            body = "\n".join(line.removeprefix("    ") if lines[0].startswith("    ") else line for line in lines)
            found.append(f"```text\n{body}\n```")
        else:
            found.append(paragraph)
    return "\n\n".join(found) + "\n\n"


def items(lines: Sequence[str]) -> str:
    """The lines of a section of a docstring as a list: deeper lines belong to the item before."""
    found: list[str] = []
    for line in inspect.cleandoc("\n" + "\n".join(lines)).splitlines():
        if line.startswith(" ") and found:
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return "\n".join(re.sub(r"^([\w*, ]+): ", lambda name: f"- {code(name[1])}: ", item) for item in found)


# Python: classes, functions and values, read from the syntax tree.


@cache
def tree_of(module: str) -> tuple[ast.Module, dict[int, str], frozenset[int]]:
    """A module's syntax tree, its comments by line, and the lines with nothing but a comment."""
    path = importlib.import_module(module).__file__
    assert path is not None
    with open(path, "rb") as file:
        tokens = [each for each in tokenize.tokenize(file.readline) if each.type == tokenize.COMMENT]
    comments = {each.start[0]: each.string.lstrip("# ") for each in tokens}
    alone = frozenset(each.start[0] for each in tokens if each.line.strip().startswith("#"))
    return ast.parse(Path(path).read_text()), comments, alone


def node_of(module: str, name: str) -> ast.stmt:
    """Where a module defines a name."""
    for node in tree_of(module)[0].body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if getattr(node, "name", None) == name or any(getattr(each, "id", None) == name for each in targets):
            return node
    raise LookupError(f"{module} does not define {name}")


def fields_of(module: str, node: ast.ClassDef) -> list[tuple[str, str, str, str]]:
    """Name, type, default and comment of each field. The comment is behind the field, or on the lines before."""
    _, comments, alone = tree_of(module)
    found = []
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        kind = ast.unparse(each.annotation)
        if each.target.id.startswith("_") or kind.startswith("ClassVar"):
            continue
        text = comments.get(each.end_lineno or each.lineno, "")
        line = each.lineno - 1
        above: list[str] = []
        while line in alone:
            above.insert(0, comments[line])
            line -= 1
        default = ast.unparse(each.value) if each.value is not None else ""
        found.append((each.target.id, kind, default, " ".join([*above, text]).strip()))
    return found


def field_table(module: str, node: ast.ClassDef) -> str:
    """The fields of a class as a table; "" if it has none."""
    rows = [(code(name), code(kind), code(default), text) for name, kind, default, text in fields_of(module, node)]
    return table(("field", "type", "default", "meaning"), rows) if rows else ""


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    """A function's signature, one parameter a line where it is long."""
    arguments = node.args
    drop = {"self", "cls"}
    arguments.args = [each for each in arguments.args if each.arg not in drop]
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returned = ast.unparse(node.returns) if node.returns is not None else ""
    if any(ast.unparse(mark).endswith("contextmanager") for mark in node.decorator_list):
        word, returned = f"{word}with ", re.sub(r"^\w+\[(.*)\]$", r"\1", returned)
    result = f" -> {returned}" if returned else ""
    whole = f"{word}{name}({ast.unparse(arguments)}){result}"
    if len(whole) > 100:
        parts = [*split_arguments(ast.unparse(arguments)), ""]
        whole = f"{word}{name}(\n    " + ",\n    ".join(parts).rstrip(" ") + f"){result}"
    return f"```text\n{whole}\n```\n\n"


def split_arguments(text: str) -> list[str]:
    """Parameters one by one; commas within brackets separate none."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            found.append(text[start:at].strip())
            start = at + 1
    return [*found, text[start:].strip()]


def describe(title: str, module: str, name: str, level: int = 2) -> str:
    """A class, a function or a value, with what users may call of it."""
    node = node_of(module, name)
    text = f"{'#' * level} {title}\n\n"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return text + signature(node, name) + prose(ast.get_docstring(node) or "")
    if not isinstance(node, ast.ClassDef):
        value = getattr(node, "value", None)
        return text + f"```text\n{name} = {ast.unparse(value) if value is not None else ''}\n```\n\n"
    text += prose(ast.get_docstring(node) or "") + field_table(module, node)
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_"):
            doc = ast.get_docstring(each)
            if doc:
                is_property = any(ast.unparse(mark) == "property" for mark in each.decorator_list)
                text += f"{'#' * (level + 1)} {title}.{each.name}\n\n"
                text += "" if is_property else signature(each, each.name)
                text += prose(doc)
    return text


def home_of(value: Any, name: str, default: str) -> str:
    """The module that defines a value."""
    found = getattr(value, "__module__", None)
    return found if isinstance(found, str) and found.startswith("mesh") else default


def public_names(module: ModuleType) -> list[str]:
    """What a module offers."""
    given = getattr(module, "__all__", None)
    return list(given) if given is not None else [name for name in vars(module) if not name.startswith("_")]


def python_page() -> str:
    """The names of the package `mesh`."""
    import mesh

    text = "# Python\n\nEverything a program needs is a name of the package `mesh`. "
    text += "Errors have [a page of their own](errors.md).\n\n"
    homes: Mapping[str, str] = mesh._HOMES
    for name in mesh.__all__:
        value = getattr(mesh, name)
        if not isinstance(value, ModuleType):
            text += describe(f"mesh.{name}", home_of(value, name, homes.get(name, "mesh")), name)
        elif name != "errors":
            text += f"## mesh.{name}\n\n"
            for inner in public_names(value):
                thing = getattr(value, inner)
                home = home_of(thing, inner, value.__name__)
                if not isinstance(thing, ModuleType) and inspect.isroutine(thing) | inspect.isclass(thing):
                    text += describe(f"mesh.{name}.{inner}", home, inner, level=3)
    return text


# The command line, from click's own objects.


def commands() -> Iterator[tuple[str, str, click.Command]]:
    """Section, full name and command; a group's commands follow it."""
    from mesh.cli import main as entry

    for section, names in entry._SECTIONS.items():
        for name in names:
            command = entry.cli.get_command(click.Context(entry.cli), name)
            assert command is not None
            yield section, name, command
            if isinstance(command, click.Group):
                for inner, each in command.commands.items():
                    yield section, f"{name} {inner}", each


def options_of(command: click.Command) -> list[click.Option]:
    """The options that help shows."""
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def option_name(option: click.Option) -> str:
    """An option as it is written, with what it takes."""
    names = [*option.opts, *option.secondary_opts]
    if option.is_flag or option.count:
        return ", ".join(code(name) for name in names)
    if option.metavar:
        taken = option.metavar
    elif isinstance(option.type, click.Choice):
        taken = "|".join(str(each) for each in option.type.choices)
    else:
        taken = "FILE" if isinstance(option.type, click.Path) else "TEXT"
    return ", ".join(code(f"{name} {taken}") for name in names)


def default_of(option: click.Option) -> str:
    """What stands where nothing is given, as help says it."""
    if isinstance(option.show_default, str):
        return option.show_default
    default = option.default
    if option.is_flag:
        return f"`--{option.opts[0].lstrip('-')}`" if option.secondary_opts and default is True else ""
    if isinstance(default, str | int | float | Path) and not isinstance(default, bool):
        return code(str(default))
    if isinstance(default, tuple | list) and default:
        return code(", ".join(str(each) for each in default))
    return ""


def variable_of(option: click.Option) -> str:
    """The environment variable of an option."""
    return option.envvar if isinstance(option.envvar, str) else ""


def row_of(option: click.Option) -> tuple[str, str, str, str]:
    return option_name(option), code(variable_of(option)), default_of(option), option.help or ""


def help_text(command: click.Command) -> str:
    """A command's help: lines that help does not wrap are code."""
    found = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        lines = paragraph.splitlines()
        if lines[0].strip() != "\b":
            found.append(paragraph)
            continue
        lines = lines[1:]
        if lines and lines[0].rstrip(":") in ("Examples", "Example"):
            body = inspect.cleandoc("\n" + "\n".join(lines[1:]))
            found.append(f"```sh\n{body}\n```")
        elif lines:
            found.append("```text\n" + inspect.cleandoc("\n" + "\n".join(lines)) + "\n```")
    return "\n\n".join(found) + "\n\n"


def cli_page() -> str:
    """Every command with its options."""
    every = list(commands())
    seen = Counter(row_of(option) for _, _, command in every for option in options_of(command))
    shared = [row for row, count in seen.items() if count >= SHARED]
    text = "# Commands\n\n`mesh COMMAND --help` says the same in the terminal, in the same words. "
    text += "Every option has an environment variable; exit codes are listed with [the errors](errors.md).\n\n"
    for section in dict.fromkeys(section for section, _, _ in every):
        rows = [(link_to(name), first_line(command)) for its, name, command in every if its == section]
        text += f"**{section}**\n\n" + table(("command", "purpose"), rows)
    text += "## Connection options\n\nEvery command that talks to NATS has these.\n\n"
    text += table(OPTION_COLUMNS, shared)
    return text + "".join(command_text(name, command, set(shared)) for _, name, command in every)


OPTION_COLUMNS = ("option", "variable", "default", "meaning")


def command_text(name: str, command: click.Command, shared: set[tuple[str, str, str, str]]) -> str:
    """One command: its help, how it is written, its own options."""
    text = f"## mesh {name}\n\n" + help_text(command)
    if isinstance(command, click.Group):
        return text
    taken = [argument_of(each) for each in command.params if isinstance(each, click.Argument)]
    text += f"```text\nmesh {' '.join([name, '[OPTIONS]', *taken])}\n```\n\n"
    rows = [row_of(each) for each in options_of(command)]
    own = [row for row in rows if row not in shared]
    text += table(OPTION_COLUMNS, own) if own else ""
    return text + ("And the [connection options](#connection-options).\n\n" if len(own) < len(rows) else "")


def link_to(name: str) -> str:
    """A link to a command's part of the page."""
    return f"[`mesh {name}`](#mesh-{name.replace(' ', '-')})"


def first_line(command: click.Command) -> str:
    """What a command does, in its first sentence."""
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())


def argument_of(argument: click.Argument) -> str:
    """An argument as the usage line writes it."""
    name = argument.metavar or (argument.name or "").upper()
    name = name if argument.required else f"[{name}]"
    return f"{name}..." if argument.nargs != 1 and not name.endswith("...") else name


# Settings, metrics, errors.


OTHER_VARIABLES = (
    ("MESH_DEBUG", "every command", "With `1`, an error shows its traceback."),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "commands with `--otlp`, and those that submit", "The collector for traces."),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "the same", "The same, for traces alone."),
    ("OTEL_SERVICE_NAME", "the same", "The service that spans name, in place of the command."),
    ("CUDA_VISIBLE_DEVICES", "`mesh worker`, `mesh up`", "The GPUs whose metrics are shown."),
)


def settings_page() -> str:
    """Every variable of the environment, the mesh's own settings, a worker's, a connection's."""
    import mesh

    variables: dict[tuple[str, str, str], list[str]] = {}
    for _, name, command in commands():
        for option in options_of(command):
            if variable_of(option):
                written, variable, default, _ = row_of(option)
                variables.setdefault((variable, written, default), []).append(name)
    rows = [(*of, users(names)) for of, names in sorted(variables.items())]
    text = "# Settings\n\nAn option on the command line wins over its variable, and a variable over the default.\n\n"
    text += "## Environment variables\n\n" + table(("variable", "option", "default", "commands"), rows)
    text += "## Other variables\n\n"
    text += table(("variable", "read by", "effect"), [(code(name), who, does) for name, who, does in OTHER_VARIABLES])
    for title, module, name, intro in (
        ("The mesh", "mesh.broker.topology.streams", "MeshSettings", "`mesh init` and `mesh up` declare these."),
        ("A worker", "mesh.worker.options", "WorkerOptions", "For programs that embed a worker."),
        ("A connection", "mesh.broker.transport.options", "ConnectOptions", "`mesh.connect(options=...)` takes it."),
        (
            "The simulator",
            "mesh.engines.simulator.settings",
            "SimulatorSettings",
            "`--engine-arg KEY=VALUE` sets each.",
        ),
    ):
        node = node_of(module, name)
        assert isinstance(node, ast.ClassDef)
        text += f"## {title}\n\n`{name}`. {intro}\n\n"
        is_told = name in mesh.__all__
        text += f"Its fields: [Python](python.md#mesh{name.lower()}).\n\n" if is_told else field_table(module, node)
    return text


def users(names: Sequence[str]) -> str:
    """The commands that have an option; a long list is cut to what they have in common."""
    return "every command that connects" if len(names) >= SHARED else ", ".join(link_in_cli(name) for name in names)


def link_in_cli(name: str) -> str:
    return f"[{name}](cli.md#mesh-{name.replace(' ', '-')})"


def metrics_page() -> str:
    """Every metric: kind, labels, meaning."""
    from prometheus_client.metrics import MetricWrapperBase

    from mesh.signals import Tally
    from mesh.telemetry import collectors, metrics

    asked = (
        collectors.WorkerCollector("m", lambda: _filled("WorkerReading"), Tally()),
        collectors.EngineCollector(lambda: _filled("EngineReading")),
        collectors.MeshCollector(lambda: _filled("MeshReading")),
        collectors.GpuCollector(lambda: [_filled("GpuReading")]),
    )
    rows: list[tuple[str, str, str, str]] = []
    for one in metrics.Metrics()._registry._collector_to_names:
        if isinstance(one, MetricWrapperBase):
            name = f"{one._name}_total" if one._type == "counter" else one._name
            assert one._type is not None
            rows.append((code(name), one._type, ", ".join(one._labelnames), one._documentation))
    for family in (family for each in asked for family in each.collect()):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((code(name), family.type, ", ".join(labels), family.documentation))
    text = "# Metrics\n\nThe page `/metrics` of a process with `--telemetry-port` shows these, beside `process_*` and "
    text += "`python_info`. [Monitoring](../howto/monitoring.md) tells how they are read, summed and alerted on.\n\n"
    return text + table(("metric", "kind", "labels", "meaning"), sorted(rows))


def _filled(name: str) -> Any:
    """A reading in which everything is known."""
    kind = getattr(importlib.import_module("mesh.telemetry.readings"), name)
    return kind(**{field.name: _example(field) for field in dataclasses.fields(kind)})


def _example(field: "dataclasses.Field[Any]") -> Any:
    if field.name == "queues":
        return [_filled("QueueReading")]
    if field.name == "stores":
        return [_filled("StoreReading")]
    if field.name == "workers":
        return [("m", "ready", 1)]
    return "x" if str(field.type).startswith("str") else 1


def errors_page() -> str:
    """Every error class: code, whether asking again may help, exit code, meaning."""
    from mesh import errors
    from mesh.cli.terminal import failure

    kinds = sorted(subclasses(errors.MeshError), key=lambda kind: node_of("mesh.errors", kind.__name__).lineno)
    meanings = dict(re.findall(r"[├└]── (\w+)[ ]+(\S.*)", errors.__doc__ or ""))
    has_status = any(hasattr(kind, "http_status") for kind in kinds)
    rows = []
    for kind in kinds:
        doc = " ".join((vars(kind).get("__doc__") or meanings.get(kind.__name__, "")).split("\n\n")[0].split())
        exit_code = getattr(kind, "exit_code", None) or failure.exit_code(BaseException.__new__(kind))
        status = [str(getattr(kind, "http_status", ""))] if has_status else []
        base = kind.__mro__[1].__name__
        can = "yes" if kind.retryable else "no"
        rows.append([code(kind.__name__), code(base), code(kind.code), can, *status, str(exit_code), doc])
    text = (
        "# Errors\n\nAll are in `mesh.errors`. `code` is the stable word for one on the wire and in `Result.error`; a "
    )
    text += "`JobError` carries the code of its Result. `retryable` says whether asking again may help.\n\n"
    head = ("class", "is a", "code", "retryable", *(("HTTP status",) if has_status else ()), "exit code", "meaning")
    text += table(head, rows)
    text += "## Exit codes of the commands\n\n"
    names = {value: name for name, value in vars(failure).items() if name.isupper() and isinstance(value, int)}
    return text + table(("exit code", "name"), [(str(number), name) for number, name in sorted(names.items())])


def subclasses(kind: type[MeshError]) -> list[type[MeshError]]:
    """A class and all below it, that mesh.errors defines."""
    below = [each for sub in kind.__subclasses__() if sub.__module__ == "mesh.errors" for each in subclasses(sub)]
    return [kind, *below]


if __name__ == "__main__":
    main()
