"""Names to tasks: fedfsd's own, and those that other packages register as ``fedfsd.tasks``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, metadata
from typing import Any, cast

from fedfsd.errors import ConfigError
from fedfsd.gate.policy import OWN_TASKS, ModelPin
from fedfsd.task import pin
from fedfsd.task.task import Task

GROUP = "fedfsd.tasks"


def of(name: str, options: Mapping[str, Any], *, reviewed: ModelPin | None = None) -> Task:
    """The task of that name with these options.

    Args:
        reviewed: what a task of another package must be; without it, what is installed is believed.

    Raises:
        ConfigError: no such task, or options it does not know.
        RefusedError: not the reviewed task.
    """
    if name in OWN_TASKS:
        module, _, attribute = OWN_TASKS[name].partition(":")
        return cast(Task, getattr(import_module(module), attribute)(options))
    make: Callable[[Mapping[str, Any]], Task] = registered(GROUP, name, OWN_TASKS, "task.name", reviewed)
    return make(options)


def registered(group: str, name: str, own: Iterable[str], place: str, reviewed: ModelPin | None) -> Any:
    """What another package registers as ``name`` in the entry points ``group``.

    Raises:
        ConfigError: nobody does. RefusedError: not what was reviewed.
    """
    entries: Iterable[metadata.EntryPoint] = metadata.entry_points(group=group)
    if reviewed is not None:  # several distributions may register one name: the reviewed one wins
        mine = reviewed.distribution
        entries = sorted(entries, key=lambda entry: entry.dist is not None and entry.dist.name == mine)
    found = {entry.name: entry for entry in entries}
    if name not in found:
        raise ConfigError(
            place,
            got=repr(name),
            expected=" | ".join(sorted({*own, *found})),
            hint="choose one of them, or install the package that registers it",
        )
    return found[name].load() if reviewed is None else pin.load(found[name], reviewed)
