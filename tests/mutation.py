"""Runs tests on a mesh with one bug planted in it, each in a fork of a process that has imported and collected all.

python -m tests.mutation [NAME ...]     plants these bugs of tests.mutants, or all; prints the outcomes as JSON

A bug is a change of a module's source. The changed source is compiled, and its code put into the functions that are
there; a constant is replaced wherever it was imported.
"""

import contextlib
import inspect
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests import running
from tests.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
LIMIT_S = 20  # for one test with a bug in it
WAIT_S = 4.0  # for a condition that such a test waits for
AT_ONCE = os.cpu_count() or 1


class PlantingError(Exception):
    """A bug cannot be planted: the text that it changes is not in the module once."""


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)


def _functions(names: Mapping[str, Any], module: str) -> Iterator[FunctionType]:
    """Every function that a module or a class of it defines."""
    for each in names.values():
        if isinstance(each, type) and each.__module__ == module:
            yield from _functions(vars(each), module)
            continue
        for found in (each, *(getattr(each, name, None) for name in ("fget", "__func__", "func"))):
            with contextlib.suppress(ValueError):
                inner = inspect.unwrap(found) if callable(found) else found
                if isinstance(inner, FunctionType) and inner.__module__ == module:
                    yield inner


def plant(mutant: Mutant) -> None:
    """Change the module as it was imported.

    Raises:
        PlantingError: the module is not as the mutant expects it.
    """
    path = ROOT / mutant.module
    source = path.read_text()
    if source.count(mutant.old) != 1:
        raise PlantingError(f"{mutant.old!r} is {source.count(mutant.old)} times in {mutant.module}")
    changed = compile(source.replace(mutant.old, mutant.new), str(path), "exec")
    module = sys.modules[mutant.module.removesuffix(".py").replace("/", ".")]
    codes = {code.co_qualname: code for code in _codes(changed)}
    for function in _functions(vars(module), module.__name__):
        function.__code__ = codes.get(function.__code__.co_qualname, function.__code__)
    _replace_constants(module, changed)


def _replace_constants(module: ModuleType, changed: CodeType) -> None:
    fresh: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(changed, fresh)
    for name, new in fresh.items():
        old = getattr(module, name, new)
        if isinstance(new, int | float | str | bytes | tuple) and not name.startswith("__") and old != new:
            for other in list(sys.modules.values()):
                if (
                    getattr(other, "__name__", "").partition(".")[0] in ("mesh", "tests")
                    and vars(other).get(name) == old
                ):
                    setattr(other, name, new)


@dataclass
class _Trial:
    """One test on one bug, in a fork."""

    name: str  # of the bug
    item: pytest.Item
    told: Path  # written at its end: how the test failed; empty: it passed

    def start(self) -> int:
        """Fork; the child's process id."""
        child = os.fork()
        if child:
            return child
        signal.alarm(LIMIT_S)  # whose signal ends the child
        running.DEADLINE_S = WAIT_S
        try:
            plant(MUTANTS[self.name])
            reports = runtestprotocol(self.item, log=False, nextitem=None)
            self.told.write_text("\n".join(str(each.longrepr) for each in reports if each.failed))
        except BaseException:
            self.told.write_text(traceback.format_exc())
        finally:
            os._exit(0)

    def outcome(self, status: int) -> str:
        """What it told, once the child has ended with this status of `waitpid`."""
        return f"it hung, and was ended by signal {status}" if status else self.told.read_text().strip()


class Planter:
    """A plugin of pytest that runs every item once for each bug, in forks, and never as it is."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self.outcomes: dict[str, dict[str, str]] = {name: {} for name in self._names}  # by test: how it failed, or ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        due = [
            (name, item)
            for item in session.items
            for name in self._names
            if item.nodeid.partition("[")[0] in MUTANTS[name].tests
        ]
        with tempfile.TemporaryDirectory() as folder:
            self._run(due, Path(folder))
        return True

    def _run(self, due: list[tuple[str, pytest.Item]], folder: Path) -> None:
        trials: dict[int, _Trial] = {}
        while due or trials:
            while due and len(trials) < AT_ONCE:
                name, item = due.pop(0)
                if not any(self.outcomes[name].values()):
                    trial = _Trial(name, item, folder / str(len(due)))
                    trials[trial.start()] = trial
            if trials:
                child, status = os.wait()
                ended = trials.pop(child)
                self.outcomes[ended.name][ended.item.nodeid] = ended.outcome(status)


def main() -> None:
    names = sys.argv[1:] or list(MUTANTS)
    planter = Planter(names)
    tests = sorted({test for name in names for test in MUTANTS[name].tests})
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["-n", "0", "-p", "no:cacheprovider", "-o", "timeout=0", *tests], plugins=[planter])
    print(json.dumps({"status": int(status), "said": said.getvalue(), "outcomes": planter.outcomes}))


if __name__ == "__main__":
    main()
