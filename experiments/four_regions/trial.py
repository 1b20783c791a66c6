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

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import nn

from fedfsd.config.experiment import Experiment
from fedfsd.drive import table
from fedfsd.drive.table import Table
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
from fedfsd.plan.build import Roster, build
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.simulation.prepare import model_with, public_of, regions_of, start_of, task_of, task_plan
from fedfsd.task import gather
from fedfsd.task.task import Examples, Scores, Task

_CPU = torch.device("cpu")


@dataclass
class Stage:
    """What all runs share: data, and the pre-trained weights of each width and seed."""

    task: Task
    public: tuple[Table, ...]
    rosters: Mapping[str, Roster]
    tests: Mapping[str, Examples]
    data: Mapping[str, VehicleData]
    _trained: dict[object, dict[str, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, *, recorded: bool = False) -> Stage:
        """Read and cut the data. RefusedError where a drive was recorded, unless ``recorded`` allows it."""
        torch.set_num_threads(1)
        private.become(1)
        private.quiet()
        task = task_of(experiment)
        tables = task.tables(experiment.data.path)
        if not recorded and any(part.origin == "recorded" for part in tables):
            raise RefusedError("data.path", got="recorded drives", expected="generated traffic")
        names = regions_of(experiment, tables)
        examples = {name: gather.gather(task, tables, name)[0] for name in names}
        return cls(
            task,
            public_of(experiment, task),
            {name: Roster(len(one.vehicles), "physical", counted=True) for name, one in examples.items()},
            {name: task.examples(table.in_region(tables, name), test=True) for name in names},
            {name: place(one, roster=len(one.vehicles), device=_CPU) for name, one in examples.items()},
        )

    @cached_property
    def baseline(self) -> dict[str, float]:
        """FDE of constant velocity by region, m."""
        return _fde({name: self.task.baseline_scores(one) for name, one in self.tests.items()})

    def run(
        self, experiment: Experiment, *, own: float | None = None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """FDE by region, m, of the public start and after ``experiment``.

        ``own``: of one release of moments, with the model that each region makes of that share of its own.
        """
        made = experiment.model.options.get("width"), experiment.seed
        initial, frozen, model = start_of(
            experiment, self.task, self.public, {}, trained=self._trained.get(made)
        )
        whole = backbone.whole(initial, frozen)
        self._trained.setdefault(
            made, {name: one for name, one in whole.items() if not name.startswith("moments.")}
        )
        plan = build(experiment, self.rosters, task_plan(self.task), model)
        net = model_with(plan, self.task, initial, frozen)
        start = self._errors(net)
        inner = strategies.resolve(experiment.server.strategy, experiment.server.options)
        moments.bind(inner, plan, net)
        updates: dict[str, Arrays] = {}
        strategy = PlannedStrategy(
            inner,
            plan,
            round_timeout_seconds=60.0,
            keep=lambda region, _, update: updates.update({region: update}),
        )
        grid = _Here(plan, model_with(plan, self.task, initial, frozen), self.task, self.data)
        found = strategy.start(grid, initial, on_round=lambda _: None)
        if own is None:
            return start, self._errors(model_with(plan, self.task, found, frozen))
        means = {name: moments.released(plan, name, update) for name, update in updates.items()}
        ridge = float(experiment.server.options.get("ridge", 1.0))
        errors = {}
        for name in means:
            mine = moments.mixed(plan, net, initial, means, name, own=own, ridge=ridge)
            errors[name] = self._errors(model_with(plan, self.task, mine, frozen))[name]
        return start, errors

    def _errors(self, model: nn.Module) -> dict[str, float]:
        return _fde({name: self.task.scores(model, one) for name, one in self.tests.items()})


class _Here(PolledGrid):
    """The regions of one plan; a message is answered where it is pushed."""

    def __init__(self, plan: Plan, model: nn.Module, task: Task, data: Mapping[str, VehicleData]) -> None:
        self._plan, self._data = plan, data
        self._names = dict(enumerate(plan.regions, start=2))
        backbone.freeze(model, [one.name for one in plan.model.arrays])
        self._gradient = local.model_on(model, task.loss, _CPU, plan.precision)
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
        release: dict[str, Any] = {"sha256": gate_arrays.sha256(update, schema), "entry": 64 * "0"}
        return RecordDict({"arrays": held.record(update), "release": ConfigRecord(release)})

    def set_run(self, _: Any) -> NoReturn:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        return private.empty_run(1)


def _fde(scores: Mapping[str, Scores]) -> dict[str, float]:
    return {name: float(one.values["fde_m"].mean()) for name, one in scores.items()}
