"""Accountants' answers, kept on disk for all test processes: many tests ask for the epsilon of the same plan.

An answer is filed under the function, its arguments, the versions of the libraries that compute it and the
source of the package that asks them; another version of any of these computes again. Errors are not kept.
Tests of the accountants themselves do not use it, and the product knows nothing of it. Processes that a test
starts come here through ``startup/sitecustomize.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("FEDFSD_ANSWERS", ROOT / ".cache" / "answers"))
LIBRARIES = ("dp-accounting", "prv-accountant", "numpy", "scipy")
SLOW = {
    "fedfsd.mechanism.accountant": ("_pld", "_prv", "epsilon_rdp"),
    "fedfsd.audit.epsilon": ("_epsilon_at_order",),
}
"""What is asked for events, answers with a number or a record of numbers, and takes long."""

_asking_anew = False


@contextmanager
def asking_anew() -> Iterator[None]:
    """Every answer is computed meanwhile."""
    global _asking_anew
    before, _asking_anew = _asking_anew, True
    try:
        yield
    finally:
        _asking_anew = before


def install(module: ModuleType) -> None:
    """Let the slow functions of ``module`` look on the disk first; before anybody imports them by name."""
    for name in SLOW[module.__name__]:
        if not hasattr(getattr(module, name), "asks_the_disk"):
            setattr(module, name, _remembered(module, name))


def _remembered(module: ModuleType, name: str) -> Callable[..., Any]:
    asked: Callable[..., Any] = getattr(module, name)

    @wraps(asked)
    def ask(events: Iterable[Any], *others: Any, **named: Any) -> Any:
        events = tuple(events)
        if _asking_anew:
            return asked(events, *others, **named)
        path = _place(f"{module.__name__}.{name} {events!r} {others!r} {sorted(named.items())!r}")
        try:
            said = json.loads(path.read_bytes())
        except OSError:
            answer = asked(events, *others, **named)
            _keep(path, answer)
            return answer
        return module.Bounds(**said) if isinstance(said, dict) else said

    ask.asks_the_disk = True
    return ask


def _keep(path: Path, answer: Any) -> None:
    """File an answer, whole or not at all; a process that may not write there goes without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(answer if isinstance(answer, float) else vars(answer)))
        draft.replace(path)


@cache
def _place(asked: str) -> Path:
    return FOLDER / _version() / hashlib.sha256(asked.encode()).hexdigest()


@cache
def _version() -> str:
    """What an answer depends on beside its arguments."""
    found = hashlib.sha256()
    for name in LIBRARIES:
        found.update(f"{name} {metadata.version(name)}\n".encode())
    package = ROOT / "fedfsd"
    for path in (*sorted((package / "mechanism").glob("*.py")), package / "audit" / "epsilon.py"):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
