"""From an experiment to all that a run starts from: test examples, initial arrays and the plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fedfsd.config.experiment import REGION_PATTERN, Experiment, Region
from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.engine.pretraining import pretrain
from fedfsd.engine.probe import probe
from fedfsd.errors import ConfigError, DataError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.plan.build import Limit, Roster, build
from fedfsd.plan.plan import WITNESS, Arrays, ArraySchema, ModelPlan, Plan, TaskPlan
from fedfsd.task import registry
from fedfsd.task.task import Examples, Task


@dataclass(frozen=True)
class Prepared:
    """One run before its first round."""

    experiment: Experiment
    plan: Plan
    task: Task
    initial: dict[str, np.ndarray]
    test: dict[str, Examples]
    rosters: dict[str, Roster]
    licences: dict[str, str]
    origins: Mapping[str, Sequence[str]]
    data_sha256: dict[str, str]
    """Of each region's rows; for a salted commitment, never written as it is."""


def prepare(
    experiment: Experiment, *, run: str | None = None, limits: Mapping[str, Limit] | None = None
) -> Prepared:
    """Read the data, build and pre-train the model, calibrate the noise.

    Args:
        run: the id of a run to be resumed; by default a new one. limits: see ``plan.build``.

    Raises:
        FedfsdError: whatever is wrong with experiment, data or model, before anything is written.
    """
    task = task_of(experiment)
    tables = task.tables(experiment.data.path)
    names = regions_of(experiment, tables)
    mine = {name: table.in_region(tables, name) for name in names}
    origins = {name: sorted({part.origin for part in mine[name]}) for name in names}
    if experiment.mode == "rehearsal" and any("recorded" in found for found in origins.values()):
        raise ConfigError(
            "mode",
            got="rehearsal on recorded drives",
            expected="private",
            hint='rehearse on tables whose origin is "synthetic" or "published"',
        )
    rosters = {name: _roster(experiment, name, mine[name]) for name in names}
    initial, model = start_of(experiment, task)
    return Prepared(
        experiment=experiment,
        plan=build(experiment, rosters, task_plan(task), model, run=run, limits=limits),
        task=task,
        initial=initial,
        test={name: task.examples(mine[name], test=True) for name in names},
        rosters=rosters,
        licences={name: "; ".join(sorted({part.licence for part in mine[name]})) for name in names},
        origins=origins,
        data_sha256={name: table.digest(mine[name]) for name in names},
    )


def task_of(experiment: Experiment) -> Task:
    """The task of an experiment. ConfigError for an unknown one or an option that it does not know."""
    return registry.of(experiment.task.name, experiment.task.options)


def task_plan(task: Task) -> TaskPlan:
    """The task as the plan names it."""
    return TaskPlan(name=task.name, options=task.options)


def start_of(experiment: Experiment, task: Task) -> tuple[dict[str, np.ndarray], ModelPlan]:
    """The arrays of the model before the first round, probed and pre-trained, and their part of the plan."""
    model = task.model(experiment.model.name, experiment.model.options, seed=experiment.seed)
    probe(model, task)
    chosen = experiment.pretraining
    if chosen.path != "none" and chosen.steps:
        pretrain(model, task, task.tables(chosen.path), chosen, seed=experiment.seed)
    initial = arrays_of(model, witness_size=experiment.model.witness_size)
    schema = tuple(ArraySchema(name=name, shape=array.shape) for name, array in initial.items())
    return initial, ModelPlan(
        name=experiment.model.name,
        options=experiment.model.options,
        arrays=schema,
        witness_size=experiment.model.witness_size,
        initial_sha256=gate_arrays.sha256(initial, schema),
    )


def arrays_of(model: nn.Module, *, witness_size: int) -> dict[str, np.ndarray]:
    """The model's parameters by name, float32, with the noise witness block last."""
    arrays = {
        name: value.detach().cpu().numpy().astype(np.float32) for name, value in model.named_parameters()
    }
    if witness_size:
        arrays[WITNESS] = np.zeros(witness_size, np.float32)
    return arrays


def model_with(plan: Plan, task: Task, arrays: Arrays) -> nn.Module:
    """The plan's model with ``arrays``, for use; the witness block is dropped."""
    model = task.model(plan.model.name, plan.model.options, seed=plan.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[name]))
    return model.eval()


def regions_of(experiment: Experiment, tables: tuple[Table, ...]) -> list[str]:
    """The regions that take part, sorted. ConfigError for a named region without data."""
    present = {name for part in tables for name in part.regions}
    for name in sorted(present):
        if not re.fullmatch(REGION_PATTERN, name):
            raise DataError(
                "column region",
                got=repr(name)[:40],
                expected="a letter, then up to 31 letters, digits, - or _",
                hint="write the region's short name, such as CN",
            )
    chosen = sorted(experiment.data.regions or present)
    for key, named, known in (
        ("data.regions", chosen, present),
        ("regions", sorted(experiment.regions), chosen),
    ):
        for name in named:
            if name not in known:
                raise ConfigError(
                    f"{key}: {name}",
                    got="a region that takes no part",
                    expected=f"one of {', '.join(sorted(known)) or 'the regions of the data'}",
                    hint="check data.path, data.regions and the name",
                )
    return chosen


def _roster(experiment: Experiment, name: str, tables: tuple[Table, ...]) -> Roster:
    keys = {key for part in tables for key in np.unique(part.text("vehicle")[~part.test])}
    if not keys:
        raise DataError(
            f"region {name}", got="no training vehicle", expected="at least one", hint="check the test column"
        )
    written = experiment.regions.get(name, Region())
    size = written.roster
    if size is not None and size < len(keys):
        raise ConfigError(
            f"regions.{name}.roster",
            got=size,
            expected="at least the number of training vehicle keys in the data",
            hint="count every key, also those without a usable window",
        )
    physical = all(part.identity == "physical" for part in tables)
    if written.identity == "physical" and not physical:
        raise ConfigError(
            f"regions.{name}.identity",
            got="physical",
            expected="recording: in some table a key stands for a vehicle of one recording",
            hint='write identity = "recording"',
        )
    identity = written.identity or ("physical" if physical else "recording")
    return Roster(size or len(keys), identity, counted=size is None)
