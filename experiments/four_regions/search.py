"""``python -m experiments.four_regions.search``: the settings of the study, held against their neighbours.

Test vehicles take no part: the table is the training vehicles alone, and a fixed fifth of them stands in
for the test vehicles. The score is the mean over regions of FDE over constant velocity's FDE.
search.csv has a row for each setting and seed. ``max_grad_norm`` goes up to what regions accept by default,
and is not lowered for the noise here.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from experiments.four_regions import cli
from experiments.four_regions.drives import as_file, for_validation
from experiments.four_regions.rung import CONSTANT_VELOCITY, FEDERATED_8, LADDER, Rung
from experiments.four_regions.study import QUICKSTART, SETTINGS, Study, measure, open_study
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import source
from fedfsd.task import score

GRID = {
    "learning_rate": (0.015, 0.03, 0.06),
    "max_grad_norm": (5.0, 10.0),
    "num_rounds": (60, 120, 240),
    "sample_rate": (0.5, 1.0),
}
NOT_PRIVATE = {"learning_rate": (0.01, 0.03, 0.1, 0.3)}
SECOND_LOOK = 5  # settings of a rung that the other seeds are spent on: one seed's best is partly luck
Setting = dict[str, float]


@dataclass(frozen=True)
class Line:
    """One line of search.csv; noise_multiplier and steps are empty where there is no noise."""

    rung: str
    learning_rate: float
    max_grad_norm: float | None
    num_rounds: int | None
    sample_rate: float | None
    seed: int
    score: float
    pooled_fde_m: float
    epsilon: float | None
    delta: float | None
    noise_multiplier: float | None
    steps: int | None


def settings() -> Iterator[tuple[Rung, Setting]]:
    """Every setting: the federation at epsilon 8, then the learning rate of the rungs without noise."""
    for values in itertools.product(*GRID.values()):
        yield FEDERATED_8, dict(zip(GRID, values, strict=True))
    for rung in LADDER:
        if rung.trains and not rung.private:
            for rate in NOT_PRIVATE["learning_rate"]:
                yield rung, {"learning_rate": rate}


def search(
    path: str, overrides: Sequence[str], seeds: Sequence[int], output: Path, *, most: int | None = None
) -> list[Line]:
    """All lines, best setting first within a rung; the first ``most`` settings alone where given.

    The first seed goes to every setting, the others to each rung's best and to what ships.
    """
    found: dict[Rung, list[tuple[Setting, list[Line]]]] = {}
    with as_file(for_validation(source.tables(path)), output / "validation.parquet") as table:
        study = open_study(table, overrides, output)
        simple = {
            name: one.values["fde_m"].mean()
            for name, one in measure(study, CONSTANT_VELOCITY, 1).errors.items()
        }
        for rung, setting in itertools.islice(settings(), most):
            line = _line(study, rung, setting, seeds[0], simple)
            found.setdefault(rung, []).append((setting, [line]))
        for rung, tried in found.items():
            tried.sort(key=lambda one: one[1][0].score)
            shipped = [one for one in tried[SECOND_LOOK:] if one[0] == _shipped(rung)]
            for setting, lines in tried[:SECOND_LOOK] + shipped:
                lines += [_line(study, rung, setting, seed, simple) for seed in seeds[1:]]
            # Settings that were looked at twice come first, then those that were not worth it.
            tried.sort(key=lambda one: (-len(one[1]), fmean(line.score for line in one[1])))
    return [line for tried in found.values() for _, lines in tried for line in lines]


def write(lines: Sequence[Line], path: Path) -> None:
    """Write search.csv, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Line))
        for line in lines:
            writer.writerow("" if cell is None else cell for cell in asdict(line).values())
    part.replace(path)


def _shipped(rung: Rung) -> Setting:
    """The setting that the study uses."""
    if not rung.private:
        return {"learning_rate": SETTINGS["learning_rate_not_private"][rung.kind]}
    experiment = load(Experiment, QUICKSTART)
    tables = (experiment.training, experiment.privacy)
    return {key: next(getattr(one, key) for one in tables if hasattr(one, key)) for key in GRID}


def _line(study: Study, rung: Rung, setting: Setting, seed: int, simple: Mapping[str, float]) -> Line:
    place = study.output / "search" / ",".join(f"{key}={value:g}" for key, value in setting.items())
    keys = {"max_grad_norm": "privacy", "sample_rate": "privacy"}
    changes = [f"{keys.get(key, 'training')}.{key}={value}" for key, value in setting.items()]
    changes += ["server.evaluate_every=1000000", "privacy.max_noise_std=1e9"]
    found = measure(replace(study, output=place), rung, seed, overrides=changes)
    privacy = next(iter(found.privacy.values()))
    fde = {name: one.values["fde_m"].mean() for name, one in found.errors.items()}
    line = Line(
        rung=rung.name,
        learning_rate=setting["learning_rate"],
        max_grad_norm=setting.get("max_grad_norm"),
        num_rounds=int(setting["num_rounds"]) if "num_rounds" in setting else None,
        sample_rate=setting.get("sample_rate"),
        seed=seed,
        score=round(float(np.mean([value / simple[name] for name, value in fde.items()])), 4),
        pooled_fde_m=round(float(score.pool(found.errors.values()).values["fde_m"].mean()), 4),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        noise_multiplier=privacy.event and privacy.event.noise_multiplier,
        steps=privacy.event and privacy.event.steps,
    )
    print(f"{rung.name} {setting} seed {seed}: {line.score:.4f}", file=sys.stderr, flush=True)
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.four_regions.search",
        description="Hold the study's settings against their neighbours, on training vehicles alone.",
    )
    given = cli.parse(parser, arguments, seeds=[1, 2, 3])

    def work() -> None:
        lines = search(given.data, given.overrides, given.seeds, given.output)
        write(lines, given.output / "search.csv")
        if given.publish:
            write(lines, Path(__file__).with_name("search.csv"))
        print(given.output / "search.csv")

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
