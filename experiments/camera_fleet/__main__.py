"""``python -m experiments.camera_fleet``: render, choose settings on stand-ins, climb the ladder."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.camera_fleet import fleets, page, train
from experiments.camera_fleet.fleets import REGIONS, STAND_INS, Size
from experiments.camera_fleet.train import NO_NOISE, Settings, Start
from fedfsd.config.experiment import Pretraining
from fedfsd.engine import backbone, trunk
from fedfsd.engine.pretraining import pretrain
from fedfsd.engine.vehicle import VehicleData
from fedfsd.plan.plan import Arrays
from fedfsd.task.camera.task import Camera, constant_yaw_rate
from fedfsd.task.task import Examples

HERE = Path(__file__).parent
PARTS: Mapping[str, Sequence[str]] = {
    "head": ["head"],
    "norms": ["head", "norms"],
    "all": ["all"],
    "last block": ["last 1 blocks"],
    "adapters": ["head", "adapters"],
}
EPSILONS = (4.0, 1.0, 8.0, 2.0)
STEPS = (0.04, 0.1, 0.25, 0.6, 1.5)
"""Lengths of a round's update that are tried on the stand-ins."""
ROUNDS = {"head": 20, "norms": 8, "all": 8, "last block": 8, "adapters": 8}
_TESTED = 400  # test cars of a region
SHRINK, MODEL, OPTIONS = 2, "conv", {"adapters": 4}


@dataclass
class Study:
    """What is shared by all runs, made when it is needed; results are kept, so a later call goes on."""

    size: Size
    cars: int
    """That train in each region."""
    few: int
    """The same where more than the head learns."""
    output: Path
    steps: int
    """Of pre-training on the randomised set; on the generic one half as many."""
    plain: bool = False
    """Leave the head's inputs as they come."""
    until: float = float("inf")
    """When to stop, by the monotonic clock."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    _frames: dict[tuple[str | bool, ...], dict[str, Examples]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        if self.kept.exists():
            self.rows = [json.loads(line) for line in self.kept.read_text(encoding="utf-8").splitlines()]

    @property
    def kept(self) -> Path:
        return self.output / ("results-plain.jsonl" if self.plain else "results.jsonl")

    @cached_property
    def paths(self) -> Mapping[str, Path]:
        return fleets.render(self.size, self.output / "fleets")

    def task(self, regions: Sequence[str]) -> Camera:
        """The task that tells the model which of ``regions`` it is in."""
        return Camera({"shrink": SHRINK, "regions": list(regions)})

    def frames(self, regions: Sequence[str], *, test: bool) -> dict[str, Examples]:
        """Of each region, decoded once: mapped files."""
        if (kept := self._frames.get((*regions, test))) is None:
            task = self.task(regions)
            kept = {name: fleets.examples(task, self.paths[name], test=test) for name in regions}
            self._frames[*regions, test] = kept
        return kept

    def model(self, public: str) -> nn.Module:
        """The public start: trained on one of the public sets once, and kept."""
        task = self.task(REGIONS)
        model = task.model(MODEL, OPTIONS, seed=1)
        path = self.output / f"start-{public}.safetensors"
        if path.exists():
            backbone.restore(model, (), path.read_bytes(), place=str(path))
            return self.whitened(model, public)
        steps = self.steps if public == "public" else -(-self.steps // 2)
        chosen = Pretraining(path=public, steps=steps, batch_size=64, learning_rate=3e-3)
        pretrain(model, task, task.tables(str(self.paths[public])), chosen, seed=1)
        path.write_bytes(backbone.packed(model, ()))
        return self.whitened(model, public)

    def whitened(self, model: nn.Module, public: str) -> nn.Module:
        """With a last layer whose inputs are uncorrelated on public frames."""
        if self.plain:
            return model
        few = fleets.first(fleets.examples(self.task(()), self.paths[public], test=True), 200)
        return train.whitened(model, few)

    def start(self, public: str, part: str, regions: Sequence[str]) -> Start:
        task = self.task(regions)
        few = fleets.first(fleets.examples(task, self.paths[public], test=True), 64)
        return train.start_of(task, self.model(public), PARTS[part], self.size.frames, few)

    def put(self, key: Mapping[str, Any], fde: Mapping[str, float]) -> None:
        row = {**key, "fde": dict(fde)}
        self.rows.append(row)
        with self.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {row}", file=sys.stderr, flush=True)

    def has(self, key: Mapping[str, Any]) -> bool:
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def missing(self, keys: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for key in keys:
            if not self.has(key):
                if time.monotonic() > self.until:
                    raise TimeoutError
                yield key


def key_of(
    what: str, public: str, part: str, rung: str, cars: int, epsilon: float, seed: int = 1
) -> dict[str, Any]:
    """What tells one run from another."""
    names = ("what", "public", "part", "rung", "cars", "epsilon", "seed")
    return dict(zip(names, (what, public, part, rung, cars, epsilon, seed), strict=True))


def fde(start: Start, arrays: Arrays, tests: Mapping[str, VehicleData]) -> dict[str, float]:
    """Of each region's test frames, m at 3 s."""
    model = start.with_arrays(arrays)
    whole = trunk.Head(model) if start.behind else model
    found = {}
    for name, test in tests.items():
        rows = torch.arange(test.padding)
        with torch.inference_mode():
            paths, _ = whole(*test.inputs_of(rows).values())
        off = paths[:, 0, -1] - test.targets["path"][rows, -1]  # one path: the likeliest
        found[name] = float(off.norm(dim=-1).mean())
    return found


def signal(size: int, cars: int, epsilon: float, rounds: int) -> float:
    """Public: how much longer a round's update can be than a region's noise in it."""
    if epsilon == NO_NOISE:
        return NO_NOISE
    return cars / (train.noise_multiplier(epsilon, rounds) * size**0.5)


def search(study: Study, public: str, part: str) -> None:
    """FDE on stand-ins' test frames for each step, at a few sizes of fleet and epsilons."""
    few = part != "head"
    cars = (study.few if few else study.cars) // 4
    keys = [
        key_of("search", public, part, f"{step:g}", cars, epsilon)
        for epsilon in ((4.0, NO_NOISE) if few else (1.0, 4.0, NO_NOISE))
        for step in (STEPS[::2] if few else STEPS)
    ]
    if all(map(study.has, keys)):
        return
    start = study.start(public, part, STAND_INS)
    data = _placed(start, study.frames(STAND_INS, test=False), cars)
    tests = _placed(start, study.frames(STAND_INS, test=True), 100)
    for key in study.missing(keys):
        settings = Settings(ROUNDS[part], float(key["rung"]))
        arrays = train.federated(start, data, key["epsilon"], settings)
        study.put(key, fde(start, arrays, tests))


def settings_for(study: Study, public: str, part: str, size: int, cars: int, epsilon: float) -> Settings:
    """The step that was best on the stand-ins at the nearest signal; its logarithm goes linearly between."""
    rounds = ROUNDS[part]
    best: dict[float, tuple[float, float]] = {}
    for row in study.rows:
        if (row["what"], row["public"], row["part"]) == ("search", public, part):
            at = min(signal(size, row["cars"], row["epsilon"], rounds), 1e3)
            found = float(np.mean(list(row["fde"].values()))), float(row["rung"])
            best[at] = min(best.get(at, found), found)
    known = sorted(best)
    step = np.interp(
        np.log(min(signal(size, cars, epsilon, rounds), 1e3)),
        np.log(known),
        [np.log(best[at][1]) for at in known],
    )
    return Settings(rounds, float(np.exp(step)))


def _placed(start: Start, found: Mapping[str, Examples], cars: int) -> dict[str, VehicleData]:
    return {name: start.place(fleets.first(one, cars)) for name, one in found.items()}


def climb(study: Study, public: str, part: str, seeds: Sequence[int]) -> None:
    """The ladder of one part that learns, and for the head the fleets of other sizes."""
    cars = study.cars if part == "head" else study.few
    keys = _ladder(public, part, cars, seeds)
    if part == "head" and public == "public":
        keys += [
            key_of("size", public, part, "federated", size, epsilon)
            for size in (125, 250, 500, 1000, 2000, 4000)
            if size <= cars
            for epsilon in (NO_NOISE, 8.0, 4.0, 2.0, 1.0, 0.5)
        ]
    if all(map(study.has, keys)):
        return
    start = study.start(public, part, REGIONS)
    data = _placed(start, study.frames(REGIONS, test=False), cars)
    tests = _placed(start, study.frames(REGIONS, test=True), _TESTED)
    for key in study.missing(keys):
        study.put(key, _rung(study, start, data, tests, key))


def _ladder(public: str, part: str, cars: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What is run, what matters most first; fewer epsilons where more than the head learns, which is slow."""
    few = EPSILONS if part == "head" else EPSILONS[:2]
    rungs = [("start", 0.0), ("pooled", NO_NOISE), ("federated", NO_NOISE), ("alone", NO_NOISE)]
    rungs += [(rung, epsilon) for epsilon in few for rung in ("federated", "alone")]
    found = [key_of("ladder", public, part, rung, cars if epsilon else 0, epsilon) for rung, epsilon in rungs]
    return found + [
        key_of("ladder", public, part, "federated", cars, epsilon, seed)
        for seed in seeds[1:]
        for epsilon in few
    ]


def _rung(
    study: Study,
    start: Start,
    data: Mapping[str, VehicleData],
    tests: Mapping[str, VehicleData],
    key: Mapping[str, Any],
) -> dict[str, float]:
    if key["rung"] == "start":
        return fde(start, start.initial, tests)
    mine = {name: train.first(one, key["cars"]) for name, one in data.items()}
    epochs = 10 if start.behind else 3
    if key["rung"] == "pooled":
        return fde(start, train.pooled(start, list(mine.values()), epochs=epochs), tests)
    settings = settings_for(study, key["public"], key["part"], start.size, key["cars"], key["epsilon"])
    if key["rung"] == "federated":
        arrays = train.federated(start, mine, key["epsilon"], settings)
        return fde(start, arrays, tests)
    found = {}
    for name, one in mine.items():  # alone
        arrays = (
            train.pooled(start, [one], epochs=epochs)
            if key["epsilon"] == NO_NOISE
            else train.federated(start, {name: one}, key["epsilon"], settings)
        )
        found |= fde(start, arrays, {name: tests[name]})
    return found


def without_learning(study: Study) -> None:
    """Straight on and constant yaw rate."""
    keys = [key_of("ladder", "", "", rung, 0, 0.0) for rung in ("straight on", "constant yaw rate")]
    if all(map(study.has, keys)):
        return
    task = study.task(REGIONS)
    tests = {name: fleets.first(one, _TESTED) for name, one in study.frames(REGIONS, test=True).items()}
    simple = {name: task.baseline_scores(test).values["fde_m"].mean() for name, test in tests.items()}
    turning = {
        name: np.linalg.norm(constant_yaw_rate(test) - test.targets["path"], axis=-1)[:, -1].mean()
        for name, test in tests.items()
    }
    for key, found in zip(keys, (simple, turning), strict=True):
        study.put(key, {name: float(value) for name, value in found.items()})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.camera_fleet", description=__doc__)
    parser.add_argument("--cars", type=int, default=1000, help="that train in each region, for the head")
    parser.add_argument("--few", type=int, default=125, help="the same where more than the head learns")
    parser.add_argument("--frames", type=int, default=3, help="of each car")
    parser.add_argument("--public", type=int, default=8000, help="frames; of the generic set half as many")
    parser.add_argument("--steps", type=int, default=2000, help="of public pre-training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="one noise each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/camera_fleet"))
    parser.add_argument("--plain", action="store_true", help="without whitening the head's inputs")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then with what there is")
    parser.add_argument("--publish", action="store_true", help="also write into the study's own folder")
    given = parser.parse_args(arguments)
    room = round(given.cars * 1.43)  # seven in ten train
    size = Size(room, round(room / 4) + 5, given.frames, given.public, given.public // 2)
    until = time.monotonic() + 60 * given.minutes
    study = Study(size, given.cars, given.few, given.output, given.steps, plain=given.plain, until=until)
    more = [part for part in given.parts if part != "head"]
    climbs = [("public", part, given.seeds if part == "head" else given.seeds[:1]) for part in given.parts]
    climbs += [("generic", part, given.seeds) for part in given.parts if part == "head"]
    climbs += [("public", part, given.seeds) for part in more]
    try:
        without_learning(study)
        for public, part, seeds in climbs:
            search(study, public, part)
            climb(study, public, part, seeds)
    except TimeoutError:
        print("out of time; the same command continues", file=sys.stderr)
    page.write(study.rows, given.output)
    if given.publish:
        page.publish(study.rows, HERE, plain=given.plain)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
