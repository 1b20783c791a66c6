"""Train and measure one rung: runs of experiments/quickstart.toml, each in a folder that is kept."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.four_regions.drives import POOLED, as_file, as_one_region
from experiments.four_regions.rung import Rung
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import source, table
from fedfsd.drive.table import Table
from fedfsd.errors import NotReadyError
from fedfsd.mechanism.event import Event
from fedfsd.plan import plan as plans
from fedfsd.plan.build import Roster
from fedfsd.report.run_folder import Folder
from fedfsd.simulation import run as simulation
from fedfsd.simulation.prepare import Prepared, model_with, prepare
from fedfsd.simulation.run import Run
from fedfsd.task.forecasting import predictor
from fedfsd.task.path import single
from fedfsd.task.task import Examples, Scores, Task

QUICKSTART = Path(__file__).parents[1] / "quickstart.toml"
SETTINGS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("study.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Study:
    """The drives that all rungs share. ``overrides`` (``key=value``) apply to every run."""

    path: str
    overrides: tuple[str, ...]
    output: Path
    tables: tuple[Table, ...]
    task: Task
    rosters: Mapping[str, Roster]
    tests: Mapping[str, Examples]
    """Test windows by region; they are never trained on and nothing is chosen on them."""


@dataclass(frozen=True)
class Privacy:
    """What a rung's run means for the training vehicles of one region; None where nothing is promised."""

    epsilon: float | None
    delta: float | None = None
    event: Event | None = None


@dataclass(frozen=True)
class Measured:
    """One rung at one seed, by region."""

    errors: dict[str, Scores]
    privacy: dict[str, Privacy]
    note: dict[str, str]


def open_study(path: str, overrides: Sequence[str], output: Path) -> Study:
    """The drives behind ``path``, cut into windows.

    Raises:
        FedfsdError: whatever is wrong with them or with an override, before anything is trained.
    """
    prepared = _prepare(path, [*overrides, "pretraining.path=none"])
    return Study(
        path=path,
        overrides=tuple(overrides),
        output=output,
        tables=source.tables(path),
        task=prepared.task,
        rosters=prepared.rosters,
        tests=prepared.test,
    )


def measure(study: Study, rung: Rung, seed: int, *, overrides: Sequence[str] = ()) -> Measured:
    """The rung's errors on every region's test windows; runs that are complete are not run again."""
    silent = dict.fromkeys(study.tests, "")
    if rung.trains:
        runs = _train(study, rung, seed, overrides)
        models = {path: Run(path).model() for path in {run.path for run in runs.values()}}
        errors = {
            name: study.task.scores(models[runs[name].path], test) for name, test in study.tests.items()
        }
        return Measured(errors, {name: _privacy(run, name) for name, run in runs.items()}, silent)
    if rung.kind == "predictor":
        chosen = {name: _best_predictor(study, name) for name in study.tests}
        errors = {name: _predict(predictor.PREDICTORS[chosen[name]], study.tests[name]) for name in chosen}
        return Measured(errors, dict.fromkeys(chosen, Privacy(None)), chosen)
    nothing = dict.fromkeys(study.tests, Privacy(0.0))
    if rung.kind == "constant velocity":
        return Measured(
            {name: study.task.baseline_scores(test) for name, test in study.tests.items()}, nothing, silent
        )
    started = _prepare(study.path, [*study.overrides, f"seed={seed}", *overrides])
    model = model_with(started.plan, started.task, started.initial, started.backbone)
    errors = {name: study.task.scores(model, test) for name, test in study.tests.items()}
    return Measured(errors, nothing, silent)


def _train(study: Study, rung: Rung, seed: int, overrides: Sequence[str]) -> dict[str, Run]:
    """The run that made each region's model."""
    changes = [*study.overrides, f"seed={seed}"]
    if rung.private:
        changes.append(f"privacy.target_epsilon={rung.epsilon}")
    else:
        rate = SETTINGS["learning_rate_not_private"][rung.kind]
        changes += ['mode="none"', f"training.learning_rate={rate}"]
    changes += overrides
    place = study.output / rung.name
    if rung.kind == "alone":
        return {
            name: run(study.path, [*changes, f'data.regions=["{name}"]'], place / name / f"seed={seed}")
            for name in study.tests
        }
    if rung.kind == "federated":
        found = run(study.path, changes, place / f"seed={seed}")
    else:
        with as_file(as_one_region(study.tables), study.output / f"{POOLED}.parquet") as path:
            found = run(path, changes, place / f"seed={seed}")
    return dict.fromkeys(study.tests, found)


def run(path: str | None, changes: Sequence[str], output: Path) -> Run:
    """A run of the quickstart file on ``path``, or on its own data if None.

    A complete one is taken as it is, an interrupted one continued.

    Raises:
        NotReadyError: ``output`` has a complete run of another experiment.
    """
    experiment = _experiment(path, changes)
    folder = Folder(output)
    if not folder.complete:
        begun = (output / "plan.json").exists()
        return simulation.run(
            experiment, engine="local", output=output, resume=begun, progress=lambda _: None
        )
    if Experiment.resolved(folder.read("experiment.json")).document() != experiment.document():
        raise NotReadyError(
            str(output),
            got="a complete run of another experiment",
            expected="the same data and settings",
            hint="choose another -o",
        )
    return Run(output)


def _privacy(run: Run, name: str) -> Privacy:
    plan = plans.read((run.path / "plan.json").read_text(encoding="utf-8"))
    if plan.mode != "private":
        return Privacy(None)
    (event,) = plan.events(name)  # the study's noise is the same in every round
    return Privacy(plan.region(name).epsilon, plan.region(name).target_delta, event)


def _prepare(path: str, overrides: Sequence[str]) -> Prepared:
    return prepare(_experiment(path, overrides))


def _experiment(path: str | None, overrides: Sequence[str]) -> Experiment:
    data = [] if path is None else [f"data.path={json.dumps(path)}"]
    return load(Experiment, QUICKSTART, overrides=[*data, *overrides])


def _best_predictor(study: Study, region: str) -> str:
    """The name of the predictor with the least FDE on the region's training windows."""
    training = study.task.examples(table.in_region(study.tables, region), test=False)
    fde = {name: _predict(one, training).values["fde_m"] for name, one in predictor.PREDICTORS.items()}
    return min(fde, key=lambda name: float(fde[name].mean()) if len(training) else 0.0)


def _predict(one: Callable[[np.ndarray, int], np.ndarray], test: Examples) -> Scores:
    future = test.targets["future"]
    return single(one(test.inputs["history"], future.shape[1]), future, test.owner)
