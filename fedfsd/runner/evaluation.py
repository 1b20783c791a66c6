"""How good the model is that a region was sent, on its own test vehicles: for its own people, never sent."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fedfsd.drive import source, table
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.runner.region import Region, spec_of
from fedfsd.task.forecasting import metric, window
from fedfsd.task.forecasting.forecast import TestSet, errors
from fedfsd.task.forecasting.model import registry

FILE = "figures.jsonl"


@dataclass(frozen=True)
class Figures:
    """The model and the test windows of one plan."""

    plan_hash: str
    model: nn.Module
    test: TestSet

    @classmethod
    def of(cls, region: Region, plan: Plan) -> Figures:
        """Model and windows, read and cut once a plan."""
        spec = spec_of(plan)
        name, options = plan.model.name, plan.model.options
        model = registry.build(name, options, spec, seed=plan.seed, reviewed=region.gate.pin(name))
        tables = table.in_region(source.tables(region.config.data_path), region.config.name)
        return cls(plan.hash, model.eval(), TestSet.of(window.cut(tables, spec, test=True), spec))

    def append(self, folder: Path, arrays: Arrays, round: int) -> None:
        """One line for the model that ``round`` began with; null where there is no test window."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.from_numpy(arrays[name].copy()))
        found = metric.summarise(errors(self.model, {"": self.test})[""])
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "plan": self.plan_hash,
            "round": round,
            "windows": found.windows,
            "vehicles": found.vehicles,
            "fde_m": None if math.isnan(found.fde_m) else found.fde_m,
            "ade_m": None if math.isnan(found.ade_m) else found.ade_m,
        }
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
