"""A run in this process: the regions' own private steps and the coordinator's own rounds, nothing in between.

No ledger, no processes, no run folder: for generated traffic alone, where nobody needs protection, and for
choosing settings, which takes many runs. Step, noise, plan and strategy are those of every run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedfsd.config.experiment import Experiment
from fedfsd.engine import backbone, local
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.errors import RefusedError
from fedfsd.federation import moments
from fedfsd.federation.strategy import PlannedStrategy
from fedfsd.flower import held, private
from fedfsd.flower import strategy as strategies
from fedfsd.flower.polled import PolledGrid
from fedfsd.gate import arrays as gate_arrays
from fedfsd.plan.build import build
from fedfsd.plan.plan import Plan
from fedfsd.simulation.prepare import Prepared, model_with, prepare
from fedfsd.task import gather
from fedfsd.task.task import Scores

_CPU = torch.device("cpu")


@dataclass
class Stage:
    """What runs of one start share: its data and its pre-trained model."""

    prepared: Prepared
    data: dict[str, VehicleData] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment) -> Stage:
        """Read, cut and pre-train once. RefusedError where a drive was recorded."""
        torch.set_num_threads(1)
        prepared = prepare(experiment)
        if any("recorded" in found for found in prepared.origins.values()):
            raise RefusedError("data.path", got="recorded drives", expected="generated traffic")
        tables = prepared.task.tables(experiment.data.path)
        data = {
            name: place(gather.gather(prepared.task, tables, name)[0], roster=roster.size, device=_CPU)
            for name, roster in prepared.rosters.items()
        }
        return cls(prepared, data)

    @cached_property
    def baseline(self) -> dict[str, float]:
        """FDE of constant velocity by region, m."""
        return _fde(
            {name: self.prepared.task.baseline_scores(one) for name, one in self.prepared.test.items()}
        )

    @cached_property
    def start(self) -> dict[str, float]:
        """FDE of the public start by region, m."""
        return self._errors(self.prepared.plan, self.prepared.initial)

    def run(self, experiment: Experiment) -> dict[str, float]:
        """FDE by region, m, after ``experiment``: the prepared one but for settings of training."""
        of = self.prepared
        plan = build(experiment, of.rosters, of.plan.task, of.plan.model)
        private.become(1)
        private.quiet()
        inner = strategies.resolve(experiment.server.strategy, experiment.server.options)
        moments.bind(inner, plan, model_with(plan, of.task, of.initial, of.backbone))
        strategy = PlannedStrategy(inner, plan, round_timeout_seconds=60.0)
        grid = _Here(plan, of, self.data)
        return self._errors(plan, strategy.start(grid, of.initial, on_round=lambda _: None))

    def _errors(self, plan: Plan, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        of = self.prepared
        model = model_with(plan, of.task, arrays, of.backbone)
        return _fde({name: of.task.scores(model, one) for name, one in of.test.items()})


class _Here(PolledGrid):
    """The regions of one plan; a message is answered where it is pushed."""

    def __init__(self, plan: Plan, prepared: Prepared, data: Mapping[str, VehicleData]) -> None:
        self._plan, self._data = plan, data
        self._names = dict(enumerate(plan.regions, start=2))
        model = model_with(plan, prepared.task, prepared.initial, prepared.backbone)
        backbone.freeze(model, prepared.initial)
        self._gradient = local.model_on(model, prepared.task.loss, _CPU, plan.precision)
        self._secret = os.urandom(32)
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self._names)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(private.number(message))
            name = self._names[message.metadata.dst_node_id]
            self._replies[ids[-1]] = Message(self._answer(name, message.content), reply_to=message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def _answer(self, name: str, content: RecordDict) -> RecordDict:
        if "config" not in content:
            return RecordDict({"region": ConfigRecord({"name": name})})
        arrays = held.arrays_of(content.array_records["arrays"])
        schema, round = self._plan.model.arrays, int(content.config_records["config"]["round"])  # type: ignore[arg-type]
        key = RoundKey(self._secret, name, self._plan.hash, round, gate_arrays.sha256(arrays, schema))
        update = local.train(self._gradient, self._data[name], arrays, self._plan, key)
        release = {"sha256": gate_arrays.sha256(update, schema), "entry": 64 * "0"}
        return RecordDict({"arrays": held.record(update), "release": ConfigRecord(release)})

    def set_run(self, _: Any) -> NoReturn:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        return private.empty_run(1)


def _fde(scores: Mapping[str, Scores]) -> dict[str, float]:
    return {name: float(one.values["fde_m"].mean()) for name, one in scores.items()}
