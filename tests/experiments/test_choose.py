"""Settings are chosen on generated traffic alone, and run once: what is drawn, kept, written and read."""

from __future__ import annotations

import json

import pytest
from conftest import drives

from experiments.four_regions import choose, fresh, release
from experiments.four_regions.rung import LADDER, START
from experiments.four_regions.study import QUICKSTART
from experiments.four_regions.trial import Stage
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.errors import NotReadyError, RefusedError

RUNG = next(rung for rung in LADDER if rung.name == "federated_eps1")


def experiment(path, *changes: str) -> Experiment:
    return load(Experiment, QUICKSTART, overrides=[f"data.path={json.dumps(str(path))}", *changes])


def test_every_setting_of_the_grids_is_one_that_an_experiment_takes():
    drawn = choose.drawn(choose.GRIDS, 12, seed=1)
    assert [one["server.strategy"] for one in drawn] == ["FedAvgM"] * 12 + ["moments"] * 12
    assert len({json.dumps(one) for one in drawn}) == 24
    assert drawn == choose.drawn(choose.GRIDS, 12, seed=1)
    for one in drawn:
        experiment("embedded", *(f"{key}={json.dumps(value)}" for key, value in one.items()))


class Scored(choose.Search):
    """A search whose runs cost nothing: the score is what a function says of setting and seed."""

    def __init__(self, score):
        self.runs, self._score = [], score

    def score(self, setting, seed, epsilon):
        self.runs.append((setting["name"], seed, epsilon))
        return self._score(setting, seed)


def setting(name: str, *, rounds: int = 10, strategy: str = "FedAvgM"):
    found = {"name": name, choose.RATE: 0.1, "privacy.max_grad_norm": 1.0, "training.num_rounds": rounds}
    return found | {"server.strategy": strategy}


def test_only_the_better_settings_are_run_again_and_one_lucky_run_does_not_win():
    scores = {("a", 1): 0.7, ("b", 1): 0.72, ("c", 1): 0.9, ("a", 2): 0.9, ("b", 2): 0.73}
    search = Scored(lambda one, seed: scores[one["name"], seed])
    assert search.halving([setting(name) for name in "abc"], [2])["name"] == "b"
    assert [run[:2] for run in search.runs] == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2)]


def test_ties_go_to_the_setting_that_can_move_farthest():
    scores = {"near": 0.7, "far": 0.7 + choose.TIE / 2, "farther": 0.7 + 2 * choose.TIE}
    some = [setting("near"), setting("far", rounds=20), setting("farther", rounds=90)]
    assert Scored(lambda one, _: scores[one["name"]]).halving(some, [3])["name"] == "far"


def test_each_promise_gets_its_rate_and_one_release_needs_none():
    search = Scored(lambda one, _: abs(one[choose.RATE] - 0.19))
    found = choose.choose(search, [setting("a")], [])
    assert found["learning_rate"] == {"1": 0.1, "2": 0.2, "4": 0.2, "8": 0.2, "none": 0.1}
    one = choose.choose(search, [setting("a", rounds=1, strategy="moments")], [])
    assert set(one["learning_rate"].values()) == {0.1}


def test_what_is_written_is_what_the_rungs_run(tmp_path):
    recipe = {"training.num_rounds": 30, "privacy.noise_schedule": "flat"}
    found = {"recipe": recipe, "learning_rate": {"1": 0.03, "none": 0.1}}
    choose.write(found, [{"epsilon": "1", "score": 0.7}, {"epsilon": "8", "more": 1}], tmp_path, "recipe")
    assert fresh.recipe(tmp_path / "recipe.toml") == found
    assert (tmp_path / "recipe.csv").read_text().splitlines()[0] == "epsilon,score,more"
    assert fresh.overrides(found, RUNG)[-1] == "training.learning_rate=0.03"
    assert not any("learning_rate" in one for one in fresh.overrides(found, START))
    with pytest.raises(NotReadyError):
        fresh.recipe(tmp_path / "other.toml")


def test_the_table_of_one_release_has_means_over_seeds():
    windows = {"CN": 30, "EU": 10}
    seeds = [release._with_pooled(one, windows) for one in ({"CN": 4.0, "EU": 8.0}, {"CN": 4.2, "EU": 8.0})]
    lines = release.table({"moments": seeds}).splitlines()
    assert lines[0] == "|  | CN | EU | pooled |"
    assert lines[2] == "| moments | 4.10 ± 0.14 | 8.00 ± 0.00 | 5.08 ± 0.11 |"


def test_a_trial_trains_as_a_run_does_and_takes_generated_traffic_alone(tmp_path):
    table.write(drives({"CN": 40, "EU": 30}), tmp_path / "drives.parquet")
    table.write(drives({"CN": 40}, origin="recorded"), tmp_path / "recorded.parquet")
    few = ["pretraining.steps=5", "training.num_rounds=2", 'mode="none"', "training.learning_rate=0.1"]
    mine = experiment(tmp_path / "drives.parquet", *few)
    stage = Stage.of(mine)
    start, found = stage.run(mine)
    assert set(found) == set(stage.baseline) == {"CN", "EU"}
    assert start != found
    again, _ = stage.run(experiment(tmp_path / "drives.parquet", *few, "training.num_rounds=1"))
    assert again == start  # pre-trained once
    once = [*few[:1], "training.num_rounds=1", 'server.strategy="moments"', "server.options={}"]
    once += ["model.options.moments=6", "privacy.target_delta=1e-3", "server.average_last=0"]
    same, mixed = stage.run(experiment(tmp_path / "drives.parquet", *once), own=0.5)
    assert same == start
    assert set(mixed) == {"CN", "EU"}
    with pytest.raises(RefusedError):
        Stage.of(experiment(tmp_path / "recorded.parquet"))
