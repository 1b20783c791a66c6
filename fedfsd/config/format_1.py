"""Experiments of format 1, which knew one task: what it called the keys that moved since.

Its keys are read for ever, in files, in ``--set`` and in sweeps. A resolved experiment (of a run folder, or
hashed into the id of a rehearsal) is written in format 1 where that can hold it.

>>> moved("data.history_seconds")
'task.options.history_seconds'
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

# Dotted key then -> dotted key now, and what the key meant where it was left out.
MOVED: Mapping[str, tuple[str, float]] = {
    "data.history_seconds": ("task.options.history_seconds", 2.0),
    "data.future_seconds": ("task.options.future_seconds", 3.0),
    "data.period_seconds": ("task.options.period_seconds", 0.5),
    "pretraining.max_error_m": ("pretraining.augmentation.max_error_m", 1.5),
    "pretraining.max_delay_seconds": ("pretraining.augmentation.max_delay_seconds", 0.2),
}


def moved(key: str) -> str:
    """The dotted key of today for one of format 1."""
    return MOVED[key][0] if key in MOVED else key


def read(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with the keys of today; one that is written in both ways keeps the old, to be refused."""
    found = deepcopy(dict(document))
    privacy = _table(found, ["privacy"], create=True) if found.get("format") == 1 else None
    if privacy is not None:
        privacy.setdefault("noise_schedule", "flat")
    for old, (new, _) in MOVED.items():
        *tables, last = old.split(".")
        place = _table(found, tables)
        if place is None or last not in place:
            continue
        *new_tables, new_last = new.split(".")
        target = _table(found, new_tables, create=True)
        if target is not None and new_last not in target:
            target[new_last] = place.pop(last)
    return found


def write(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """A resolved experiment in format 1, or None where that cannot hold it."""
    found = deepcopy(dict(document))
    if found["task"]["name"] != "forecasting" or found["privacy"].pop("noise_schedule") != "flat":
        return None
    for old, (new, default) in MOVED.items():
        *tables, last = new.split(".")
        value = (_table(found, tables) or {}).pop(last, default)
        *old_tables, old_last = old.split(".")
        place = _table(found, old_tables)
        if place is None or not isinstance(value, int | float):
            return None
        place[old_last] = float(value)
    if found.pop("task")["options"] or found["pretraining"].pop("augmentation"):
        return None
    return found


def _table(document: dict[str, Any], names: list[str], *, create: bool = False) -> dict[str, Any] | None:
    """The table that ``names`` lead to; None where something else is in the way."""
    for name in names:
        found = document.setdefault(name, {}) if create else document.get(name)
        if not isinstance(found, dict):
            return None
        document = found
    return document
