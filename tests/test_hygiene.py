"""What no test may do: import from another, judge the machine's speed, or sleep and hope.

Each rule is a function over one module's syntax tree; the tests at the end show each of them what it must see.
tests/bench measures, and is free of the rules about time.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import PROFILES, profile_of

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "tests").rglob("*.py"))
TIMED = [path for path in MODULES if (ROOT / "tests" / "bench") not in path.parents]
# Tests of pure code: a number of milliseconds there is computed, not measured.
PURE = ("unit", "property")

CLOCKS = {"monotonic", "perf_counter", "time", "monotonic_ns", "perf_counter_ns", "time_ns"}  # not those of CPU time
WAITS = {"timeout", "wait_for", "wait_until", "wait"}
LONGEST_S = {"_s": 1.0, "_ms": 1000.0}  # by the unit in a name


def imports_of_tests(tree: ast.Module) -> Iterator[int]:
    """Lines that import from a test module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        if any(re.search(r"(^|\.)tests?(\.\w+)*\.test_\w+$", name) for name in names):
            yield node.lineno


def bounds_under_a_second(tree: ast.Module, is_pure: bool = False) -> Iterator[int]:
    """Lines that demand that something takes less than a second, by a clock or by a time limit."""
    constants = _constants(tree)
    expected = set(_expected_timeouts(tree))
    for function in _functions(tree):
        measured = _measured(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Compare):
                if any(_is_bound(*pair, measured, constants, is_pure) for pair in _less_than(node)):
                    yield node.lineno
            elif isinstance(node, ast.Call) and node not in expected and _limit_of(node, constants) < 1.0:
                yield node.lineno


def sleeps_for_luck(tree: ast.Module) -> Iterator[int]:
    """Lines that sleep for some time outside a loop, which waits for a condition or sets a pace."""
    in_loops = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.While | ast.For | ast.AsyncFor)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "sleep" and node not in in_loops:
            (span, *_) = node.args or [ast.Constant(1)]
            if not (isinstance(span, ast.Constant) and span.value == 0):
                yield node.lineno


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _name(node: ast.expr) -> str:
    """The last name of `a.b.c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _constants(tree: ast.Module) -> dict[str, float]:
    """Numbers that the module gives names to, some made of others."""
    found: dict[str, float] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            value = _number(node.value, found)
            if isinstance(target, ast.Name) and value is not None:
                found[target.id] = value
    return found


def _number(node: ast.expr, constants: Mapping[str, float]) -> float | None:
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return constants.get(name)
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _number(left, constants), _number(right, constants)
            if one is None or other is None:
                return None
            match op:
                case ast.Add():
                    return one + other
                case ast.Sub():
                    return one - other
                case ast.Mult():
                    return one * other
                case ast.Div() if other:
                    return one / other
    return None


def _is_elapsed(node: ast.expr) -> bool:
    """Whether it holds a difference to a clock."""
    return any(
        isinstance(inner, ast.BinOp)
        and isinstance(inner.op, ast.Sub)
        and any(isinstance(call, ast.Call) and _name(call.func) in CLOCKS for call in ast.walk(inner))
        for inner in ast.walk(node)
    )


def _measured(function: ast.AST) -> set[str]:
    """Names in a function that hold a time that has passed."""
    return {
        name.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and _is_elapsed(node.value)
        for target in node.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }


def _less_than(node: ast.Compare) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The smaller and the larger side of each part of a comparison."""
    for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
        if isinstance(op, ast.Lt | ast.LtE):
            yield left, right
        elif isinstance(op, ast.Gt | ast.GtE):
            yield right, left


def _is_bound(
    value: ast.expr, limit: ast.expr, measured: set[str], constants: Mapping[str, float], is_pure: bool
) -> bool:
    number = _number(limit, constants)
    if number is None or number <= 0:
        return False
    names = {inner.id for inner in ast.walk(value) if isinstance(inner, ast.Name)}
    if _is_elapsed(value) or names & measured:
        return number < 1.0
    unit = re.search(r"_m?s$", value.attr) if isinstance(value, ast.Attribute) else None  # what the product reports
    return unit is not None and not is_pure and number < LONGEST_S[unit[0]]


def _limit_of(call: ast.Call, constants: Mapping[str, float]) -> float:
    """The time limit that a call of ours or of asyncio is given, in seconds."""
    given = call.args[-1:] if _name(call.func) in WAITS else []
    given += [each.value for each in call.keywords if each.arg in ("timeout", "deadline_s")]
    numbers = [number for each in given if (number := _number(each, constants)) is not None and number > 0]
    return min(numbers, default=float("inf"))


def _expected_timeouts(tree: ast.Module) -> Iterator[ast.AST]:
    """Everything within a block that expects an error, or lets a timeout pass: there the limit is what is tested."""
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            heads = [each.context_expr for each in node.items]
            if any(isinstance(each, ast.Call) and _name(each.func) in ("raises", "suppress") for each in heads):
                yield from ast.walk(node)
        elif isinstance(node, ast.Try) and any(_lets_pass(each) for each in node.handlers):
            for statement in node.body:
                yield from ast.walk(statement)
        elif isinstance(node, ast.Lambda):  # called by a test that measures it, or expects its error
            yield from ast.walk(node)


def _lets_pass(handler: ast.ExceptHandler) -> bool:
    """Whether it takes the end of a wait for an answer."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type or ast.Name("Exception")]
    return any(_name(kind).endswith("TimeoutError") or _name(kind) == "AssertionError" for kind in kinds)


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _places(path: Path, lines: Iterator[int]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}" for line in lines]


def test_no_module_imports_from_a_test_module() -> None:
    """What two of them need stands in a module of its own: tests/running.py, tests/cli/up.py, samples.py."""
    assert [place for path in MODULES for place in _places(path, imports_of_tests(_parsed(path)))] == []


def test_nothing_is_bound_to_take_less_than_a_second() -> None:
    """A busy machine is no fault of ours: assert an order, a count, or wait with a deadline of many seconds."""
    found = [
        place
        for path in TIMED
        for place in _places(path, bounds_under_a_second(_parsed(path), path.relative_to(ROOT).parts[1] in PURE))
    ]
    assert found == []


def test_nothing_sleeps_for_luck() -> None:
    """`wait_until(condition)` sees what must happen; for what must not, wait for something that comes after it."""
    assert [place for path in TIMED for place in _places(path, sleeps_for_luck(_parsed(path)))] == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.cli.test_up import UP",
        "from tests.cli import test_up",
        "import tests.cli.test_up",
    ],
)
def test_the_rule_about_imports_sees(line: str) -> None:
    assert list(imports_of_tests(ast.parse(line))) == [1]


@pytest.mark.parametrize("line", ["from tests.running import wait_until", "from pytest import test_kit", "import nats"])
def test_the_rule_about_imports_lets_pass(line: str) -> None:
    assert list(imports_of_tests(ast.parse(line))) == []


SHORT = [
    "assert time.monotonic() - began_s < 0.5",
    "assert 0.2 <= loop.time() - began < 0.9",
    "assert 0.9 > time.perf_counter() - began",
    "took_s = time.monotonic() - began_s; assert took_s <= LIMIT_S / 2",
    "assert result.timing.queued_ms < 400",
    "async with asyncio.timeout(0.3): await job",
    "await asyncio.wait_for(job, 0.5)",
    "await wait_until(lambda: heard, 0.5)",
    "await wait_until(lambda: heard, deadline_s=LIMIT_S / 4)",
    "await job.result(timeout=0.2)",
]
LONG = [
    "assert time.monotonic() - began_s < 5",
    "assert time.monotonic() - began_s > 0.5",
    "assert time.thread_time() - began_s < 0.1",
    "took_s = time.monotonic() - began_s; assert took_s <= 2 * LIMIT_S",
    "assert result.timing.queued_ms < 4000",
    "await wait_until(lambda: heard)",
    "await wait_until(lambda: heard, 10)",
    "with pytest.raises(WaitTimeoutError): await job.result(timeout=0.2)",
    "with contextlib.suppress(TimeoutError): await asyncio.wait_for(job, 0.001)",
    "try: await wait_until(pulled, 0.5)\n    except AssertionError: await again()",
]


def within_a_test(line: str) -> ast.Module:
    return ast.parse(f"LIMIT_S = 1.0\nasync def test() -> None:\n    {line}\n")


@pytest.mark.parametrize("line", SHORT)
def test_the_rule_about_bounds_sees(line: str) -> None:
    assert set(bounds_under_a_second(within_a_test(line))) == {3}


@pytest.mark.parametrize("line", LONG)
def test_the_rule_about_bounds_lets_pass(line: str) -> None:
    assert list(bounds_under_a_second(within_a_test(line))) == []


@pytest.mark.parametrize("line", ["await asyncio.sleep(0.5)", "time.sleep(1); assert heard == []", "sleep(A_WHILE_S)"])
def test_the_rule_about_sleeps_sees(line: str) -> None:
    assert list(sleeps_for_luck(within_a_test(line))) == [3]


@pytest.mark.parametrize("line", ["await asyncio.sleep(0)", "while not heard: await asyncio.sleep(0.01)"])
def test_the_rule_about_sleeps_lets_pass(line: str) -> None:
    assert list(sleeps_for_luck(within_a_test(line))) == []


def test_property_tests_repeat_themselves_in_ci_only() -> None:
    assert profile_of({"CI": "true"}) == "ci"
    assert profile_of({}) == "developer"
    assert profile_of({"CI": "true", "HYPOTHESIS_PROFILE": "thorough"}) == "thorough"
    assert [name for name, profile in PROFILES.items() if profile.get("derandomize")] == ["ci"]
    assert PROFILES["thorough"]["max_examples"] >= 10 * PROFILES["developer"]["max_examples"]
