"""Tests against one mutant: a forked process in which one module of fedfsd has a fault.

The parent imports what is large and not under test (torch, scipy, pytest, ...) and no module of fedfsd; a
child compiles the one module from a changed tree and runs, fastest first, the tests that reach the changed
line. Nothing is written into the source tree, and a mutant takes seconds, not an import of torch as well.

Why not mutmut or cosmic-ray: mutmut 3 changes function bodies through trampolines, which leaves out
decorated functions and what stands outside functions, here the cached accountants, validators, properties,
bounds of fields and constants. cosmic-ray changes the file in place and starts a process for each mutant,
whose tests then run whole: most of a day. Neither knows that answers kept on disk are another mutant's.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from experiments.mutation.mutants import Mutant, mutated

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "torch", "opacus.grad_sample", "scipy.stats", "dp_accounting.pld", "dp_accounting.rdp", "prv_accountant",
    "pyarrow.parquet", "pydantic", "cryptography.x509", "flwr.serverapp", "hypothesis.strategies", "jinja2",
)  # fmt: skip
ANSWERED = ("accountant", "event", "renyi")
"""Modules on which accountants' answers depend: their mutants look up and leave behind none."""


@dataclass(frozen=True)
class Reach:
    """What the tests of a file run of it, and for how long."""

    lines: dict[str, set[int]]
    """By test."""
    seconds: dict[str, float]

    def tests(self, line: int) -> list[str]:
        """Those that run a line, fastest first; a line that runs at import is everybody's."""
        found = [test for test, lines in self.lines.items() if line in lines]
        return sorted(found or self.seconds, key=self.seconds.__getitem__)


class _Follow:
    """A pytest plugin: which lines of some files each test runs, those of its wider fixtures included."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = {str(path): _module(path) for path in paths}
        self.lines: dict[str, dict[str, list[int]]] = {path: {} for path in self.paths}
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.into: set[tuple[str, int]] = set()

    def trace(self, frame: FrameType, *_: Any) -> Any:
        if frame.f_code.co_filename not in self.paths:
            return None
        self.into.add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._forget()
        self.into = mine = set()
        started = time.monotonic()
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.seconds[item.nodeid] = time.monotonic() - started
            wider = (self.fixtures.get(name, set()) for name in getattr(item, "fixturenames", ()))
            for path, line in mine.union(*wider):
                self.lines[path].setdefault(item.nodeid, []).append(line)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        before = self.into
        if fixturedef.scope != "function":
            self.into = self.fixtures[fixturedef.argname]
        try:
            return (yield)
        finally:
            self.into = before

    def _forget(self) -> None:
        """What a function remembers of an earlier test would hide that this one asks it too."""
        for name in self.paths.values():
            for value in list(vars(sys.modules.get(name, object)).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


class _Only:
    """A pytest plugin: these tests, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.rank = {test: rank for rank, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (one for one in items if one.nodeid in self.rank), key=lambda one: self.rank[one.nodeid]
        )


class _Changed(SourceFileLoader):
    """Loads a module with a fault in it."""

    number: int | None = None

    def get_code(self, _: str) -> CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(mutated(source, self.number), self.path, "exec", dont_inherit=True)


class _Finder:
    def __init__(self, path: Path, number: int | None) -> None:
        self.name, self.path, self.number = _module(path), path, number

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != self.name:
            return None
        loader = _Changed(name, str(self.path))
        loader.number = self.number
        return spec_from_file_location(name, self.path, loader=loader)


def preload() -> None:
    """Import once, before any fork, what every trial needs."""
    for name in PRELOADED:
        importlib.import_module(name)


def reach(paths: Sequence[Path], tests: Sequence[str]) -> dict[Path, Reach]:
    """Run ``tests`` on the unchanged files and follow them.

    Raises:
        SystemExit: they do not pass.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "reach.json"

        def follow() -> int:
            plugin = _Follow(paths)
            status = _pytest(None, None, tests, [plugin])
            told.write_text(json.dumps([plugin.lines, plugin.seconds]))
            return status

        status = _wait(_fork(follow, quiet=False), None)
        if status != 0:
            raise SystemExit(f"the tests do not pass unchanged (pytest's exit status {status})")
        lines, seconds = json.loads(told.read_text())
    return {
        path: Reach({test: set(found) for test, found in lines[str(path)].items()}, seconds) for path in paths
    }


def survives(mutant: Mutant, found: Reach) -> bool:
    """Whether every test that reaches it passes. Running ten times too long is noticing it."""
    tests = found.tests(mutant.line)
    if not tests:
        return True
    expected = sum(found.seconds[test] for test in tests)
    path = ROOT / mutant.path
    child = _fork(lambda: _pytest(path, mutant.number, tests, [_Only(tests)]), quiet=True)
    return _wait(child, 60 + 10 * expected) == 0


def _pytest(path: Path | None, number: int | None, tests: Iterable[str], plugins: list[Any]) -> int:
    """Run tests with fault ``number`` in the file at ``path``; pytest's exit status."""
    answers = shared = ROOT / ".cache" / "answers"
    if path is not None:
        sys.meta_path.insert(0, _Finder(path, number))
        if path.stem in ANSWERED:
            answers = Path(tempfile.mkdtemp(prefix="answers-"))
    os.environ.update(FEDFSD_ANSWERS=str(answers), CI="1")
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    try:
        return int(pytest.main(["-x", "-q", "--assert=plain", *files], plugins=plugins))
    finally:
        if answers != shared:
            shutil.rmtree(answers, ignore_errors=True)


def _fork(work: Any, *, quiet: bool) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        os.chdir(ROOT)
        if quiet:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
        status = work()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def _wait(child: int, seconds: float | None) -> int:
    """The exit status; 124 for one that had to be ended, with all it had started."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 124
        time.sleep(0.01)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)
