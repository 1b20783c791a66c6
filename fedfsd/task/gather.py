"""A region's training examples, gathered so that no vehicle can stop it, and what became of its vehicles.

The counts are computed from the data: for the region's own people, and for a simulation, which has all data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.table import Fault, Table
from fedfsd.task.task import Examples, Task

_ROWS = 2**20  # whose examples are counted at a time


@dataclass(frozen=True)
class Rule:
    """What one rule of the task dropped."""

    what: str
    """In the task's words, such as ``windows that travel less than 3 m``."""
    count: int
    """Of what ``what`` names, over all training vehicles."""
    vehicles: int
    """Vehicles that it hit and that have no window at all."""


@dataclass(frozen=True)
class Survey:
    """What one region can train on."""

    region: str
    vehicles: int
    """N as a policy's roster counts: training vehicle keys, those without a window included."""
    with_window: int
    windows: int
    rules: tuple[Rule, ...]
    """Empty where the task gives no reasons."""
    unusable: int
    """Vehicles that the task failed on: they contribute zero."""
    faults: tuple[Fault, ...]
    """What was left out of the region's files on reading."""

    @property
    def share(self) -> str:
        """How much of the region takes part, in one line."""
        return f"{self.region}: {self.with_window} of {self.vehicles} training vehicles have a window"

    @property
    def reasons(self) -> list[str]:
        """What was dropped of the vehicles, a line each."""
        failed = [f"{self.unusable} vehicles that the task fails on"] if self.unusable else []
        return [
            f"{rule.count} {rule.what}"
            + (f" ({rule.vehicles} of their vehicles have no window)" if rule.vehicles else "")
            for rule in self.rules
        ] + failed

    @property
    def left_out(self) -> list[str]:
        """What was left out of the files, a line each."""
        return [f"{one.count} {one.unit}: column {one.column}, {one.got}" for one in self.faults]

    def stated(self, roster: int | None) -> str:
        """The share beside the roster that is stated; a larger one is allowed."""
        if roster is None:
            return self.share
        more = roster - self.vehicles
        return f"{self.share}; roster {roster}" + (f", {more} more than there are" if more > 0 else "")

    def remarks(self, roster: int | None) -> list[str]:
        """What the region's people should know before a plan with ``roster`` is trained, a line each."""
        found = []
        if not self.with_window:
            found.append(f"{self.share}: its budget would be spent on noise alone")
        if roster is not None and roster < self.vehicles:
            found.append(
                f"{self.vehicles} training vehicle keys, roster {roster}: {self.vehicles - roster} more than"
                " stated; all are protected alike, but delta, weight and divisor were chosen for fewer"
            )
        if self.unusable:
            found.append(self.reasons[-1])
        if self.faults:
            found.append(f"left out: {'; '.join(self.left_out)}")
        return found

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def tables_of(task: Task, path: str, region: str) -> tuple[Table, ...]:
    """What one region's examples are made of: its rows alone, if the task can read them alone.

    A task that can has ``region_tables(path, region)``, which gives for each table behind ``path`` what
    ``gather`` needs, also of tables without a row of the region.
    """
    narrow: Callable[[str, str], tuple[Table, ...]] | None = getattr(task, "region_tables", None)
    return task.tables(path) if narrow is None else narrow(path, region)


def gather(task: Task, tables: Sequence[Table], region: str) -> tuple[Examples, Survey]:
    """The training examples of ``region`` in ``tables``; a vehicle that the task fails on has none.

    Whether a vehicle has examples depends on its own rows alone.

    Raises:
        Exception: whatever the task raises where there is no row at all.
    """
    # Also where no row is of the region: a task may need the columns.
    mine = table.in_region(tables, region) or tuple(replace(one, rows=one.rows.slice(0, 0)) for one in tables)
    unusable = 0
    try:
        examples = task.examples(mine, test=False)
    except Exception:  # of whatever kind: another package's task may fail in any way on a strange value
        parts = [task.examples(_of(mine, ()), test=False)]
        keys = table.vehicles(mine, test=False)
        unusable = _usable(keys, lambda some: task.examples(_of(mine, some), test=False), parts)
        examples = _joined(keys, parts)
    counts = np.bincount(examples.owner, minlength=len(examples.vehicles))
    return examples, Survey(
        region=region,
        vehicles=len(examples.vehicles),
        with_window=int((counts > 0).sum()),
        windows=len(examples),
        rules=tuple(
            Rule(what, int(hit.sum()), int(((hit > 0) & (counts == 0)).sum()))
            for what, hit in examples.dropped.items()
            if hit.any()
        ),
        unusable=unusable,
        faults=tuple(fault for one in tables for fault in one.faults),
    )


def survey(task: Task, tables: Sequence[Table], region: str) -> Survey:
    """What ``gather`` says, some vehicles at a time: their examples need not all be in memory."""
    keys = {
        key for test in (False, True) for key in table.vehicles(table.in_region(tables, region), test=test)
    }
    several = -(-sum(one.num_rows for one in tables) // _ROWS)
    if several < 2:
        return gather(task, tables, region)[1]
    parts = np.array_split(np.array(sorted(keys), object), several)
    found = [gather(task, _of(tables, part.tolist()), region)[1] for part in parts]
    rules: dict[str, Rule] = {}
    for rule in (rule for one in found for rule in one.rules):
        before = rules.get(rule.what, Rule(rule.what, 0, 0))
        rules[rule.what] = Rule(rule.what, before.count + rule.count, before.vehicles + rule.vehicles)
    return replace(
        found[0],
        **{name: sum(getattr(one, name) for one in found) for name in ("vehicles", "with_window", "windows")},
        unusable=sum(one.unusable for one in found),
        rules=tuple(rules.values()),
    )


def _of(tables: Sequence[Table], keys: Sequence[str]) -> tuple[Table, ...]:
    """The rows of some vehicles."""
    return tuple(replace(one, rows=one.rows.filter(pa.array(one.among("vehicle", keys)))) for one in tables)


def _usable(keys: Sequence[str], examples: Callable[[Sequence[str]], Examples], parts: list[Examples]) -> int:
    """Append the examples of ``keys`` to ``parts``; how many vehicles the task fails on."""
    if not keys:
        return 0
    try:
        parts.append(examples(keys))
    except Exception:
        half = len(keys) // 2
        return sum(_usable(some, examples, parts) for some in (keys[:half], keys[half:])) if half else 1
    return 0


def _joined(keys: Sequence[str], parts: Sequence[Examples]) -> Examples:
    """The parts as the examples of ``keys``; both are in key order."""
    slot = {key: number for number, key in enumerate(keys)}
    places = [np.array([slot[key] for key in one.vehicles], np.int64) for one in parts]
    dropped = {what: np.zeros(len(keys), np.int64) for one in parts for what in one.dropped}
    for one, place in zip(parts, places, strict=True):
        for what, hit in one.dropped.items():
            dropped[what][place] = hit
    return Examples(
        tuple(keys),
        np.concatenate([place[one.owner] for one, place in zip(parts, places, strict=True)]),
        {name: np.concatenate([one.inputs[name] for one in parts]) for name in parts[0].inputs},
        {name: np.concatenate([one.targets[name] for one in parts]) for name in parts[0].targets},
        dropped,
    )
