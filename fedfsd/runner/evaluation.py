"""How good the model is that a region was sent, on its own test vehicles: for its own people, never sent."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fedfsd.drive import table
from fedfsd.engine import backbone
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.runner.region import Region
from fedfsd.task import score
from fedfsd.task.gather import tables_of
from fedfsd.task.task import Examples, Task

FILE = "figures.jsonl"


@dataclass(frozen=True)
class Figures:
    """The model and the test examples of one plan."""

    plan_hash: str
    task: Task
    model: nn.Module
    test: Examples

    @classmethod
    def of(cls, region: Region, plan: Plan) -> Figures:
        """Model and examples, read and cut once a plan."""
        task = region.task(plan)
        name = region.config.name
        tables = table.in_region(tables_of(task, region.config.data_path, name), name)
        return cls(plan.hash, task, region.model(task, plan).eval(), task.examples(tables, test=True))

    def append(self, folder: Path, arrays: Arrays, round: int) -> None:
        """One line for the model that ``round`` began with; null where there is no test example."""
        backbone.put_arrays(self.model, arrays)
        found = score.summary(self.task.metrics, self.task.scores(self.model, self.test))
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "plan": self.plan_hash,
            "round": round,
            "windows": found["test_windows"],
            "vehicles": found["test_vehicles"],
            **{
                metric.key: None if math.isnan(found[metric.key]) else found[metric.key]
                for metric in self.task.metrics
            },
        }
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
