"""A reviewed model of another package: looked at before a line of it runs, and run from the bytes looked at.

Importing it in the usual way would run the package's other files, and compiled ones that no hash was made of.
So a pinned model is one file: it may import what is installed, fedfsd and torch among it, nothing relative.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from fedfsd import canonical
from fedfsd.errors import RefusedError
from fedfsd.gate.policy import ModelPin


def load(entry: EntryPoint, pin: ModelPin) -> Any:
    """What ``entry`` names, if the policy's ``pin`` fits what is installed.

    Raises:
        RefusedError: another distribution, version or file; nothing of it was run.
    """
    dist = entry.dist
    installed = (None, None) if dist is None else (dist.name, dist.version)
    if installed != (pin.distribution, pin.version):
        raise _refused(pin, got=" ".join(filter(None, installed)) or "no distribution")
    path = _source(entry)
    if path is None:
        raise _refused(pin, got="no source file among the distribution's")
    content = path.read_bytes()
    if canonical.sha256(content) != pin.sha256:
        raise _refused(pin, got="a source file of another hash")
    found: Any = _module(entry.module, path, content)
    for attribute in entry.attr.split("."):
        found = getattr(found, attribute)
    return found


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
    exec(compile(content, str(path), "exec"), module.__dict__)
    return module


def _refused(pin: ModelPin, *, got: str) -> RefusedError:
    return RefusedError(
        f"model {pin.name}",
        got=got,
        expected=f"{pin.distribution} {pin.version} with the reviewed file",
        hint="review what is installed and name it in the policy's models",
    )
