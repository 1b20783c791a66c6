"""Reviewed models and tasks of other packages: checked before a line runs, run from the bytes checked.

``package_sha256`` pins every file of the top-level package (``task.package``). ``sha256`` pins one file,
which may import what is installed, fedfsd and torch among it, nothing relative. Neither covers what the
code imports from other distributions.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from fedfsd import canonical
from fedfsd.errors import RefusedError
from fedfsd.gate.policy import ModelPin
from fedfsd.task import package

GROUPS = ("models", "tasks", "readers")
"""The entry points ``fedfsd.<group>`` whose code sees a region's data."""


def load(entry: EntryPoint, pin: ModelPin) -> Any:
    """What ``entry`` names, if the policy's ``pin`` fits what is installed.

    Raises:
        RefusedError: another distribution, version, file or package; nothing of it was run.
    """
    dist = entry.dist
    installed = (None, None) if dist is None else (dist.name, dist.version)
    if installed != (pin.distribution, pin.version):
        raise _refused(pin, got=" ".join(filter(None, installed)) or "no distribution")
    found: Any = _whole(entry, pin) if pin.package_sha256 else _single(entry, pin)
    for attribute in entry.attr.split("."):
        found = getattr(found, attribute)
    return found


def installed() -> list[tuple[str, EntryPoint, package.Package | RefusedError]]:
    """What could be pinned: each group and entry point, with its package or why it cannot be."""
    found: list[tuple[str, EntryPoint, package.Package | RefusedError]] = []
    for group in GROUPS:
        for entry in sorted(metadata.entry_points(group=f"fedfsd.{group}"), key=lambda one: one.name):
            try:
                found.append((group, entry, package.read(entry)))
            except RefusedError as error:
                found.append((group, entry, error))
    return found


def _whole(entry: EntryPoint, pin: ModelPin) -> ModuleType:
    read = package.read(entry)
    if read.sha256 != pin.package_sha256:
        raise _refused(pin, got="a package of another hash")
    return package.module(read, entry.module)


def _single(entry: EntryPoint, pin: ModelPin) -> ModuleType:
    path = _source(entry)
    if path is None:
        raise _refused(pin, got="no source file among the distribution's")
    content = path.read_bytes()
    if canonical.sha256(content) != pin.sha256:
        raise _refused(pin, got="a source file of another hash")
    return _module(entry.module, path, content)


def _source(entry: EntryPoint) -> Path | None:
    """The file of the entry's module, as the distribution lists it; finding it imports nothing."""
    stem = entry.module.replace(".", "/")
    for file in (entry.dist and entry.dist.files) or ():
        if file.as_posix() in (f"{stem}.py", f"{stem}/__init__.py"):
            return Path(str(file.locate()))
    return None


@cache
def _module(name: str, path: Path, content: bytes) -> ModuleType:
    """The module that ``content`` makes, once a process."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses and pydantic look annotations up
    exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
    return module


def _refused(pin: ModelPin, *, got: str) -> RefusedError:
    what = "package" if pin.package_sha256 else "file"
    return RefusedError(
        pin.name,
        got=got,
        expected=f"{pin.distribution} {pin.version} with the reviewed {what}",
        hint="review what is installed and name it in the region's policy: fedfsd config pins",
    )
