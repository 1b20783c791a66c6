"""From an experiment to all that a run starts from: test examples, initial arrays and the plan."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedfsd.config.experiment import OWN, PRETRAINING, REGION_PATTERN, Experiment, Model, Region
from fedfsd.drive import overlap, table
from fedfsd.drive.table import Table
from fedfsd.engine import backbone, resident
from fedfsd.engine.probe import failure, probe, probe_places
from fedfsd.errors import ConfigError, DataError, FedfsdError, ModelError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.statement import Crossing
from fedfsd.plan.build import Limit, Roster, build, canaries
from fedfsd.plan.plan import CANARIES, WITNESS, Arrays, ArraySchema, ModelPlan, Plan, TaskPlan
from fedfsd.plan.written import MOMENTS
from fedfsd.simulation import public_start
from fedfsd.task import moments, registry
from fedfsd.task.gather import Survey, survey
from fedfsd.task.task import Examples, Task

_MOST_SETS = 8
_PROGRESS = logging.getLogger("fedfsd.progress")


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
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    """What each region can train on; empty where its data are not here."""
    backbone: bytes | None = None
    """The file of weights that are not trained, where the plan names one."""
    crossing: Crossing | None = None
    """Vehicles in several regions, where all data are here to be compared."""


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
    table.demand_sound(tables)
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
    surveys = {name: survey(task, tables, name) for name in names}
    if experiment.resident is not None:
        for one in surveys.values():
            resident.demand_enough(one.with_window, place=f"region {one.region}")
    rosters = {name: _roster(experiment, surveys[name], mine[name]) for name in names}
    vehicles = sum(one.vehicles for one in surveys.values())
    _PROGRESS.info("data: %d training vehicles of %d regions", vehicles, len(names))
    public = public_of(experiment, task)
    overlap.demand_apart([part for one in mine.values() for part in one], public, place="pretraining.path")
    initial, frozen, model = start_of(experiment, task, public, rosters)
    _PROGRESS.info("plan: calibrating the noise")
    plan = build(experiment, rosters, task_plan(task), model, run=run, limits=limits)
    demand_places(experiment, plan, task, initial, frozen)
    return Prepared(
        experiment=experiment,
        plan=plan,
        task=task,
        initial=initial,
        test={name: task.examples(mine[name], test=True) for name in names},
        rosters=rosters,
        licences={name: "; ".join(sorted({part.licence for part in mine[name]})) for name in names},
        origins=origins,
        data_sha256={name: table.digest(mine[name]) for name in names},
        surveys=surveys,
        backbone=frozen,
        crossing=_crossing(plan, overlap.regions_of_keys(mine)),
    )


def task_of(experiment: Experiment) -> Task:
    """The task of an experiment. ConfigError for an unknown one or an option that it does not know."""
    return registry.of(experiment.task.name, experiment.task.options)


def task_plan(task: Task) -> TaskPlan:
    """The task as the plan names it."""
    return TaskPlan(name=task.name, options=task.options)


def public_of(experiment: Experiment, task: Task) -> tuple[Table, ...]:
    """The tables of public pre-training; none where there is no pre-training."""
    chosen = experiment.pretraining
    tables = task.tables(chosen.path) if chosen.path != "none" and chosen.steps else ()
    table.demand_sound(tables)
    return tables


def start_of(
    experiment: Experiment,
    task: Task,
    public: Sequence[Table],
    rosters: Mapping[str, Roster],
    *,
    trained: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[str, np.ndarray], bytes | None, ModelPlan]:
    """The arrays of the model before the first round, probed and pre-trained, and their part of the plan.

    Between them stands the file of the weights that are not trained, if there are any.

    That no vehicle of ``public`` is a private one is for the caller to see to, if it has private data.

    Args:
        trained: what the same pre-training made already of this model, which was probed then.
    """
    torch.set_num_threads(1)  # small models; with several threads each would wait for the other cores
    chosen = experiment.model
    model = _built(task, experiment)
    _demand_moments(experiment, model)
    names = backbone.trained(model, chosen.trainable)
    built = backbone.packed(model, names)
    whole = len(names) == len(list(model.parameters())) and not moments.has(model)
    if not whole:
        backbone.freeze(model, names)
    _take_weights(chosen, model, names, whole=whole)
    if trained is None:
        probe(model, task, names, engine=experiment.training.engine)
    else:
        backbone.put(model, trained)
    if public and trained is None:
        if chosen.backbone == PRETRAINING and not whole:
            backbone.freeze(model, [name for name, _ in model.named_parameters()])
        public_start.start(model, task, public, experiment)
    if experiment.server.strategy == MOMENTS:
        _fit_moments(model, task, public, experiment)
    most = max((canaries(experiment, roster) for roster in rosters.values()), default=0)
    initial = arrays_of(model, names, witness_size=chosen.witness_size, canaries=most)
    schema = tuple(ArraySchema(name=name, shape=array.shape) for name, array in initial.items())
    content = None if whole else backbone.packed(model, names)
    return (
        initial,
        content,
        ModelPlan(
            name=chosen.name,
            options=chosen.options,
            arrays=schema,
            witness_size=chosen.witness_size,
            initial_sha256=gate_arrays.sha256(initial, schema),
            backbone=None if content is None else backbone.planned(model, names, content, built=built),
        ),
    )


def _demand_moments(experiment: Experiment, model: nn.Module) -> None:
    """The strategy moments with a model that has them and public traffic to whiten by, or none of it."""
    there = moments.has(model)
    if (experiment.server.strategy == MOMENTS) != there:
        raise ConfigError(
            "server.strategy",
            got=f"{experiment.server.strategy!r} and a model {'with' if there else 'without'} moments",
            expected="moments in both, or in neither",
            hint='set server.strategy = "moments" and model.options.moments, for the model mlp',
        )
    if there and experiment.pretraining.path == "none":
        raise ConfigError(
            "pretraining.path",
            got='"none" with the strategy moments',
            expected="public traffic, by which features are whitened",
            hint='set pretraining.path = "public"',
        )


def _fit_moments(model: Any, task: Task, public: Sequence[Table], experiment: Experiment) -> None:
    """Whiten by public examples, as pre-training saw them."""
    drawn = task.public_batches(
        public,
        experiment.pretraining.augmentation,
        batch_size=experiment.pretraining.batch_size,
        random=np.random.default_rng(experiment.seed),
    )
    with torch.no_grad():
        model.moments.fit(model.equations(*inputs.values(), targets) for inputs, targets in islice(drawn, 16))


def _built(task: Task, experiment: Experiment) -> nn.Module:
    """The model as its code makes it; whatever that code raises is an error of the model."""
    chosen = experiment.model
    try:
        return task.model(chosen.name, chosen.options, seed=experiment.seed)
    except FedfsdError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {chosen.name}",
            got=f"code that fails: {failure(error)}",
            expected="a model made from its options",
            hint="see fedfsd/task/task.py for the contract",
        ) from error


def _take_weights(chosen: Model, model: nn.Module, names: Sequence[str], *, whole: bool) -> None:
    """Put the weights that the experiment names into ``model``; by default there are none."""
    if chosen.backbone == PRETRAINING:
        return
    if whole:
        raise ConfigError(
            "model.backbone",
            got=repr(chosen.backbone),
            expected='"pretraining", where all of the model is trained',
            hint='name what is trained, such as model.trainable = "head"',
        )
    if chosen.backbone == OWN:
        return
    try:
        content = Path(chosen.backbone).read_bytes()
    except OSError:
        raise ConfigError(
            "model.backbone",
            got=f"no readable file {chosen.backbone}",
            expected='"pretraining", "model", or a file of weights (.safetensors)',
            hint="name a file such as the backbone.safetensors of a run",
        ) from None
    backbone.restore(model, names, content, place=f"model.backbone: {chosen.backbone}")


def arrays_of(
    model: nn.Module, names: Collection[str], *, witness_size: int, canaries: int = 0
) -> dict[str, np.ndarray]:
    """The model's parameters of these names, float32; behind them canaries' and the noise witness block."""
    arrays = {
        name: value.detach().cpu().numpy().astype(np.float32)
        for name, value in model.named_parameters()
        if name in names
    }
    if canaries:
        arrays[CANARIES] = np.zeros(canaries, np.float32)
    if witness_size:
        arrays[WITNESS] = np.zeros(witness_size, np.float32)
    return arrays


def model_with(plan: Plan, task: Task, arrays: Arrays, frozen: bytes | None) -> nn.Module:
    """The plan's model with ``arrays``, for use; the witness block is dropped.

    Args:
        frozen: the file of the weights that are not trained, where there are any.
    """
    model = task.model(plan.model.name, plan.model.options, seed=plan.seed)
    if frozen is not None:
        backbone.restore(model, list(arrays), frozen, place="backbone")
    backbone.put_arrays(model, arrays)
    return model.eval()


def demand_places(
    experiment: Experiment, plan: Plan, task: Task, initial: Arrays, frozen: bytes | None
) -> None:
    """As each region will: refuse to pack windows of a model whose bits depend on their place.

    Raises:
        ModelError: they do.
    """
    packed = [mine for mine in plan.regions.values() if mine.packed]
    if packed:
        model = model_with(plan, task, initial, frozen)
        backbone.freeze(model, initial)
        probe_places(model, task, packed, precision=plan.precision, engine=experiment.training.engine)


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


def _crossing(plan: Plan, shared: Mapping[tuple[str, ...], int]) -> Crossing | None:
    """The vehicles in several regions, and the largest epsilon of one of them; None also without a promise.

    Where many sets of regions share vehicles, all regions of these sets are taken as one.
    """
    if not shared or any(mine.epsilon is None for mine in plan.regions.values()):
        return None
    every = tuple(sorted({name for names in shared for name in names}))
    sets = list(shared) if len(shared) <= _MOST_SETS else [every]
    delta = max(plan.region(name).target_delta for name in every)
    composed = {
        names: epsilon_pld([event for name in names for event in plan.events(name)], delta) for names in sets
    }
    worst = max(sets, key=lambda names: composed[names])
    return Crossing(sum(shared.values()), worst, composed[worst], delta)


def _roster(experiment: Experiment, survey: Survey, tables: tuple[Table, ...]) -> Roster:
    """What is public about a region. Raises where it could train on nothing, or not on all that it states."""
    name = survey.region
    if not survey.vehicles:
        raise DataError(
            f"region {name}", got="no training vehicle", expected="at least one", hint="check the test column"
        )
    if not survey.with_window or survey.unusable:
        raise DataError(
            survey.share,
            got="; ".join(survey.reasons) or "no reason from the task",
            expected="vehicles to train on: the budget would be spent on noise alone",
            hint=f"fedfsd data check shows details; data.regions without {name} leaves it out",
        )
    written = experiment.regions.get(name, Region())
    size = written.roster
    if size is not None and size < survey.vehicles:
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
    return Roster(size or survey.vehicles, identity, counted=size is None)
