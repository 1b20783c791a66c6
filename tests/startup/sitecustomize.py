"""On the path of every process that a test starts: it too looks up what accountants have answered before.

Nothing is imported here before the process itself asks for the module; what takes its answers from there is
``remembered``. A process that is started with another path or environment computes for itself.

And pandas is for highway-env alone, which needs it: pyarrow would load it in every process that reads a
table, which takes longer than reading it. A region has none.
"""

from __future__ import annotations

import sys
from importlib import util
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("fedfsd.mechanism.accountant", "fedfsd.audit.epsilon")


class Finder(MetaPathFinder):
    """Finds what the others find, and has ``remembered`` called once it is loaded."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name == "pandas" and "highway_env" not in sys.modules:
            # Only an import is refused: torch asks where pandas lies, without loading it.
            if sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
                raise ModuleNotFoundError("pandas is for highway-env alone", name=name)
            return None
        if name not in MODULES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = After(spec.loader)
        return spec


class After(Loader):
    """Loads as ``loader`` does, then puts the answers before the module's functions."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        sys.path.append(str(Path(__file__).parents[1]))
        try:
            from remembered import install

            install(module)
        finally:
            sys.path.pop()


sys.meta_path.insert(0, Finder())
