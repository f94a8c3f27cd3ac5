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
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
LIMIT_S = 20  # for one test with a bug in it


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


class Planter:
    """A plugin of pytest that runs every item once for each bug, in a fork, and never as it is."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self.outcomes: dict[str, dict[str, str]] = {name: {} for name in self._names}  # by test: how it failed, or ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        test = item.nodeid.partition("[")[0]
        for name in self._names:
            if test in MUTANTS[name].tests and not any(self.outcomes[name].values()):
                self.outcomes[name][item.nodeid] = self._run(item, MUTANTS[name])
        return True

    def _run(self, item: pytest.Item, mutant: Mutant) -> str:
        with tempfile.TemporaryFile("w+") as told:
            child = os.fork()
            if child == 0:
                signal.alarm(LIMIT_S)  # whose signal ends the child
                try:
                    plant(mutant)
                    reports = runtestprotocol(item, log=False, nextitem=None)
                    print("\n".join(str(each.longrepr) for each in reports if each.failed), file=told, flush=True)
                except BaseException:
                    traceback.print_exc(file=told)
                    told.flush()
                finally:
                    os._exit(0)
            status = os.waitpid(child, 0)[1]
            told.seek(0)
            return f"it hung, and was ended by signal {status}" if status else told.read().strip()


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
