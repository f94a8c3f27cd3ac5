"""The plan of the house: who may import whom, what is pure, and how big a room may grow."""

import ast
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mesh"

# Rooms and their floors. Imports run strictly downwards; rooms on one floor do not know each other.
FLOOR = {
    "_version": 1,
    "errors": 1,
    "signals": 1,
    "clock": 1,
    "figures": 1,
    "job_key": 1,
    "protocol": 2,
    "policies": 2,
    "broker": 3,
    "engines": 3,
    "telemetry": 3,
    "server": 3,
    "client": 4,
    "worker": 4,
    "blocking": 5,
    "audit": 5,
    "reconcile": 6,
    "gateway": 7,
    "control": 8,
    "hosting": 9,
    "verify": 10,
    "cli": 11,
}
# The steps inside a floor: `policies` decides about what `protocol` says, and a signal names its job.
INSIDE_A_FLOOR = {("policies", "protocol"), ("signals", "job_key")}

# What a room may take from `mesh` itself: which version this is, and where its files lie.
OF_THE_PACKAGE = {"__version__", "__file__"}

# A foreign library is imported in one room, which maps its errors and can name the extra to install.
ONLY_IN = {
    "nats": "broker",
    "vllm": "engines",
    "torch": "engines",
    "transformers": "engines",
    "click": "cli",
    "rich": "cli",
    "textual": "cli",
    "starlette": "gateway",
    "prometheus_client": "telemetry",
    "matplotlib": "verify",
    "opentelemetry": "telemetry",
    "pynvml": "telemetry",
}

# Told what happened and when, they answer what to do: no I/O, no clock, no chance, no log.
PURE = {
    "_version",
    "errors",
    "signals",
    "figures",
    "job_key",
    "protocol",
    "policies",
    "broker/inspect/facts",
    "broker/inspect/server_info",
    "broker/stores/delivery",
    "client/assembly",
    "client/request_fields",
    "client/requests",
    "worker/attempt",
    "worker/credits",
    "worker/lease",
    "worker/suspension",
    "audit/entries",
    "reconcile/address_fault",
    "reconcile/deadlines",
    "gateway/admission",
    "control/deadletters/redrive",
    "control/doctor/checks",
    "control/doctor/checks_local",
    "control/doctor/checks_mesh",
    "control/doctor/facts",
    "control/jobs/job_state",
    "control/jobs/pending_reasons",
    "control/jobs/timeline",
    "control/replay/plan",
    "control/status/checks",
    "control/status/depth",
    "control/status/versions",
    "control/tenants/account_file",
    "cli/terminal/figures",
    "cli/top/hour",
    "cli/top/keys",
    "cli/top/sight",
    "cli/top/tables",
    "engines/simulator/text",
    "engines/simulator/batch",
    "engines/simulator/cache",
    "engines/simulator/request",
    "engines/simulator/settings",
    "engines/vllm/attempt",
    "engines/vllm/params",
    "engines/vllm/resume",
    "telemetry/health",
    "telemetry/pages",
    "telemetry/readings",
    "telemetry/shapes",
    "telemetry/spans",
    "verify/bench/dataset",
    "verify/bench/figures",
    "verify/bench/plan",
    "verify/bench/report",
    "verify/soak/checker",
    "verify/soak/costs",
    "verify/soak/history",
    "verify/soak/oracle",
    "verify/soak/plan",
    "verify/soak/report",
    "verify/soak/rules_journal",
    "verify/soak/rules_reader",
    "verify/soak/rules_wire",
    "verify/soak/trace",
    "verify/soak/violation",
}
IMPURE = {
    "asyncio",
    "concurrent",
    "ctypes",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "nats",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "warnings",
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}

MAX_LINES = 400
MAX_BODY = 60
MAX_PARAMETERS = 8
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")
IDS = [str(path.relative_to(ROOT)) for path in MODULES]

each_module = pytest.mark.parametrize("path", MODULES, ids=IDS)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE).with_suffix(""))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_front_door(path: Path) -> bool:
    """The package's own `__init__` hands names on, wherever they live."""
    return path == PACKAGE / "__init__.py"


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports_of(tree: ast.Module, where: str) -> Iterator[tuple[str, str]]:
    """Every (module, name) imported, inside functions and under TYPE_CHECKING as well; name "" for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}:{node.lineno}: a relative import hides the floor it crosses"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((str(each.value), "") for each in node.args[:1] if isinstance(each, ast.Constant))


def faults_in(tree: ast.Module, here: str, where: str) -> list[str]:
    """What a module of room `here` imports against the plan."""
    faults = []
    for module, name in imports_of(tree, where):
        top, *rest = module.split(".")
        if top != "mesh":
            if ONLY_IN.get(top, here) != here:
                faults.append(f"{where} imports {module}, which belongs to {ONLY_IN[top]}")
            continue
        room = rest[0] if rest else name
        if room in ("", *OF_THE_PACKAGE):
            used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            borrowed = {each for each in used if each.startswith("mesh.") and each.split(".")[1] not in OF_THE_PACKAGE}
            faults += [f"{where} uses {each} of the package itself" for each in sorted(borrowed) if not room]
        elif room not in FLOOR:
            faults.append(f"{where} imports {module}.{name}: room {room!r} is not in the plan")
        elif room != here and FLOOR[room] >= FLOOR[here] and (here, room) not in INSIDE_A_FLOOR:
            faults.append(f"{where} (floor {FLOOR[here]}) imports {room} (floor {FLOOR[room]})")
    return faults


@each_module
def test_imports_run_downwards_and_libraries_stay_in_their_room(path: Path) -> None:
    if not is_front_door(path):
        assert faults_in(tree_of(path), room_of(path), name_of(path)) == []


@each_module
def test_every_room_has_its_floor_in_the_plan(path: Path) -> None:
    if not is_front_door(path):
        assert room_of(path) in FLOOR


@pytest.mark.parametrize(
    ("here", "source"),
    [
        ("broker", "import mesh.worker.worker"),
        ("client", "from mesh.worker.attempt import Attempt"),
        ("worker", "from mesh import client"),
        ("protocol", "def f():\n    from mesh.broker import store"),
        ("protocol", "if TYPE_CHECKING:\n    from mesh.policies.retry import RetryPolicy"),
        ("engines", "import mesh.broker"),
        ("worker", "import nats.errors"),
        ("broker", "import vllm"),
        ("control", "import click"),
        ("worker", "import mesh\nmesh.connect()"),
        ("worker", "importlib.import_module('nats')"),
        ("cli", "import mesh.cupboard"),
    ],
)
def test_the_guard_sees_each_kind_of_trespass(here: str, source: str) -> None:
    assert faults_in(ast.parse(source), here, "made up") != []


@pytest.mark.parametrize(
    ("here", "source"),
    [
        ("worker", "import mesh\nprint(mesh.__version__)"),
        ("cli", "from mesh import __version__"),
        ("policies", "from mesh.protocol.messages import TIERS"),
        ("worker", "from mesh.worker.lease import Lease\nimport asyncio"),
    ],
)
def test_the_guard_lets_the_planned_ways_pass(here: str, source: str) -> None:
    assert faults_in(ast.parse(source), here, "made up") == []


def is_pure(path: Path) -> bool:
    return room_of(path) in PURE or name_of(path) in PURE


def test_every_module_called_pure_exists() -> None:
    missing = {name for name in PURE if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()}
    assert missing == set()


@each_module
def test_a_module_that_calls_itself_pure_is_watched(path: Path) -> None:
    doc = ast.get_docstring(tree_of(path)) or ""
    if "Pure." in doc or "Pure:" in doc:
        assert is_pure(path), f"{name_of(path)} says that it is pure, but is not in the list"


@each_module
def test_pure_modules_do_no_io_and_know_no_clock(path: Path) -> None:
    if not is_pure(path) or is_front_door(path):
        return
    tree = tree_of(path)
    tops = {module.split(".")[0] for module, _ in imports_of(tree, name_of(path))}
    assert tops & IMPURE == set()
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls & IMPURE_CALLS == set()
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


@each_module
def test_no_pure_module_leans_on_an_impure_one(path: Path) -> None:
    """Purity is only as deep as what is imported."""
    if not is_pure(path) or is_front_door(path):
        return
    for module, name in imports_of(tree_of(path), name_of(path)):
        if not module.startswith("mesh"):
            continue
        for candidate in (f"{module}.{name}", module):
            file = ROOT / (candidate.replace(".", "/") + ".py")
            if file.is_file() and file != PACKAGE / "__init__.py":
                allowed = is_pure(file) or name_of(file) in ("engines/base",)
                assert allowed, f"{name_of(path)} is pure and imports {name_of(file)}"
                break


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines below the signature and the docstring."""
    has_doc = ast.get_docstring(function) is not None and len(function.body) > 1
    return (function.end_lineno or 0) - function.body[1 if has_doc else 0].lineno + 1


@each_module
def test_modules_functions_and_signatures_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert body_lines(node) <= MAX_BODY, f"{node.name} is too long"
        arguments = node.args
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named = [each for each in parameters if each.arg not in ("self", "cls")]
        assert len(named) <= MAX_PARAMETERS, f"{name_of(path)}:{node.name} has {len(named)} parameters"


def module_of(dotted: str) -> Path | None:
    """The file of a module or package of ours, None if it is neither."""
    stem = ROOT / dotted.replace(".", "/")
    return next((each for each in (stem.with_suffix(".py"), stem / "__init__.py") if each.is_file()), None)


@cache
def imported_by(path: Path) -> frozenset[Path]:
    """Our modules that a module names in its imports, wherever they stand."""
    found = set()
    for module, name in imports_of(tree_of(path), name_of(path)):
        if module.split(".")[0] == "mesh":
            file = module_of(f"{module}.{name}") or module_of(module)
            if file is not None and not is_front_door(file):
                found.add(file)
    return frozenset(found - {path})


def cycle_in(edges: Mapping[str, Collection[str]]) -> list[str]:
    """The first cycle met in a graph, as the names along it; [] if there is none."""
    sorter = TopologicalSorter(edges)
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {
        name_of(path): {name_of(each) for each in imported_by(path)} for path in MODULES if not is_front_door(path)
    }
    assert cycle_in(edges) == []


def test_a_cycle_is_seen() -> None:
    assert cycle_in({"a": ["b"], "b": ["c"], "c": ["a"]}) in (
        ["a", "c", "b", "a"],
        ["b", "a", "c", "b"],
        ["c", "b", "a", "c"],
    )
    assert cycle_in({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_a_public_class_has_its_name_to_itself() -> None:
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name_of(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


@each_module
def test_only_the_terminal_prints(path: Path) -> None:
    if room_of(path) == "cli":
        return
    called = [ast.unparse(n.func) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
    assert not {"print", "sys.stdout.write", "sys.stderr.write"} & set(called)


CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime"}


def clocks_read_in(tree: ast.Module) -> set[str]:
    """The clocks that a module reads by itself. `loop.time()` is none: a virtual loop has its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text in {f"time.{each}" for each in CLOCKS} | {"datetime.now", "datetime.utcnow", "date.today"}:
                found.add(text)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {f"time.{alias.name}" for alias in node.names if alias.name in CLOCKS}
    return found


@each_module
def test_only_the_clock_reads_clocks(path: Path) -> None:
    if name_of(path) != "clock":
        assert clocks_read_in(tree_of(path)) == set()


@pytest.mark.parametrize(
    "source", ["time.time()", "x = time.monotonic", "from time import time_ns", "datetime.now(UTC)", "date.today()"]
)
def test_a_clock_that_is_read_elsewhere_is_seen(source: str) -> None:
    assert clocks_read_in(ast.parse(source))


@each_module
def test_every_module_says_what_it_is(path: Path) -> None:
    if path.name != "__init__.py":
        assert ast.get_docstring(tree_of(path))


@each_module
def test_the_init_of_a_room_is_a_door_and_nothing_else(path: Path) -> None:
    if path.name != "__init__.py" or is_front_door(path):
        return
    for node in tree_of(path).body:
        is_doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert is_doc or isinstance(node, ast.Import | ast.ImportFrom | ast.Assign)


def test_no_python_file_lies_in_the_nats_folder() -> None:
    """One would shadow the library of that name for whoever runs from the repository."""
    assert list((ROOT / "nats").rglob("*.py")) == []
