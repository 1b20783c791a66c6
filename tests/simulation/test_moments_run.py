"""Runs of the strategy moments: one release, a start for rounds of gradients, a region's own mix."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import experiment_of
from federation import Federation
from simulation.test_run import experiment

import fedfsd
from fedfsd.audit.evidence import load as load_evidence
from fedfsd.audit.verify import verify
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.errors import ConfigError
from fedfsd.federation import checkpoint, moments
from fedfsd.gate.policy import warnings
from fedfsd.mechanism.calibration import noise_multiplier
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import STATISTICS, WITNESS
from fedfsd.simulation.prepare import model_with, prepare

MOMENTS = {
    "server__strategy": "moments",
    "server__average_last": 0.0,
    "model__options": {"width": 3, "moments": 8},
    "model__trainable": "head",
    "privacy__sample_rate": 1.0,
    "training__num_rounds": 1,
}
SIZE = 8 * 9 // 2 + 8 * 2


@pytest.fixture(scope="module")
def run(drives_path, tmp_path_factory):
    wanted = experiment(drives_path, mode="private", **MOMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedfsd.report.page._figures", lambda _: {})
        return fedfsd.simulate(wanted, output=tmp_path_factory.mktemp("moments") / "run")


def plan_of(run):
    return plans.read((run.path / "plan.json").read_text())


def federation(folder, drives_path, **changes):
    wanted = experiment_of(drives_path, rounds=3) | {"pretraining": {"steps": 5, "batch_size": 64}}
    for key, value in {**MOMENTS, "training__num_rounds": 3, **changes}.items():
        where, _, last = key.rpartition("__")
        wanted.setdefault(where, {})[last] = value
    return Federation(folder, wanted)


def bound(one: Federation):
    """A fresh strategy that solves with the federation's own model, as a run makes it."""
    strategy, of = one.strategy(), one.prepared
    moments.bind(strategy.inner, one.plan, model_with(one.plan, of.task, of.initial, of.backbone))
    return strategy


def test_one_release_a_region_at_the_price_of_one_gaussian(run):
    plan = plan_of(run)
    assert [one.name for one in plan.model.arrays] == ["head.weight", "head.bias", STATISTICS, WITNESS]
    assert plan.model.arrays[2].shape == (1, SIZE)
    sigma = noise_multiplier(target_epsilon=4.0, target_delta=1e-3, sample_rate=1.0, steps=1)
    for name, mine in plan.regions.items():
        assert (mine.noise_multiplier, plan.events(name)[0].steps) == (sigma, 1)
        assert 3.9 < mine.epsilon <= 4.0
    assert "second moments" in warnings(plan, "CN")[-1]
    lines = [json.loads(line) for line in (run.path / "rounds.jsonl").read_text().splitlines()]
    sent = {one["bytes"] for line in lines[1:] for one in line["regions"].values()}
    assert sent == {4 * (64 + SIZE + 512)}


def test_the_auditor_accepts_it(run):
    bundles = sorted((run.path / "bundles").glob("*.zip"))
    found = load_evidence(bundles, receipts=run.path / "receipts.json", trust=run.path / "trust.keys")
    assert verify(found).headline == "holds"


def test_the_model_forecasts_and_the_start_is_not_what_is_kept(run):
    model = run.model()
    assert model.head.weight.abs().sum() > 0
    assert set(run.metrics["regions"]) == {"CN", "EU", "US"}


def test_the_coordinator_solves_the_regions_releases_and_a_region_its_own_mix(tmp_path, drives_path):
    one = federation(tmp_path, drives_path, training__num_rounds=1)
    updates = {}
    for name in one.plan.regions:
        one[name].update(lambda arrays, name=name: updates.setdefault(name, arrays), round=1)
    (done,) = one.rounds(bound(one))
    of, plan = one.prepared, one.plan
    means = {name: moments.released(plan, name, update) for name, update in updates.items()}
    model = model_with(plan, of.task, of.initial, of.backbone)
    weights = {name: plan.region(name).weight for name in plan.regions}
    solved = moments.solved(plan, model, of.initial, means, weights, ridge=1.0)
    for name, array in solved.items():
        np.testing.assert_allclose(done.arrays[name], array, atol=1e-4, err_msg=name)
    same = moments.mixed(plan, model, of.initial, means, "EU", own=0.0, ridge=1.0)
    np.testing.assert_allclose(same["head.weight"], solved["head.weight"], atol=1e-6)
    alone = moments.mixed(plan, model, of.initial, means, "EU", own=1.0, ridge=1.0)
    np.testing.assert_allclose(alone[STATISTICS].ravel(), means["EU"], rtol=1e-5)
    mine = plan.region("EU")
    std = mine.noise_multiplier * mine.max_grad_norm / mine.roster  # of a step; a round is their mean
    assert moments.noise_std(plan, "EU") == pytest.approx(std / mine.local_steps**0.5)


def test_rounds_follow_from_the_solved_head_and_a_run_cut_off_ends_with_the_same_bits(tmp_path, drives_path):
    whole = federation(tmp_path / "whole", drives_path)
    rounds = whole.rounds(bound(whole))
    kept = [one.arrays[STATISTICS] for one in rounds]
    assert all(np.array_equal(kept[0], one) for one in kept[1:])
    assert not np.array_equal(rounds[0].arrays["head.weight"], rounds[1].arrays["head.weight"])

    class CutOff(Exception):
        pass

    def stop(done):
        checkpoint.save(tmp_path / "checkpoint", first, done)
        raise CutOff

    other = federation(tmp_path / "other", drives_path)
    first, second = bound(other), bound(other)
    with pytest.raises(CutOff):
        other.rounds(first, on_round=stop)
    done, arrays = checkpoint.restore(tmp_path / "checkpoint", second)
    again = other.rounds(second, first_round=done + 1, arrays=arrays)
    for name, array in rounds[-1].arrays.items():
        assert np.array_equal(again[-1].arrays[name], array), name


def test_the_plan_splits_the_budget(drives_path):
    changes = {**MOMENTS, "training__num_rounds": 11, "server__options": {"share": 0.7}}
    plan = prepare(load(Experiment, experiment(drives_path, mode="private", **changes))).plan
    sigmas = plan.region("CN").mechanism.noise_multipliers
    assert sigmas[0] ** -2 / sum(sigma**-2 for sigma in sigmas) == pytest.approx(0.7, abs=0.01)
    assert len(set(sigmas[1:])) == 1
    assert 3.9 < plan.region("CN").epsilon <= 4.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__options": {}}, "model without moments"),
        ({"server__strategy": "FedAvg"}, "model with moments"),
        ({"model__name": "gru", "model__options": {}}, "model without moments"),
        ({"pretraining__path": "none"}, "public"),
        ({"server__options": {"share": 1.5}}, "share"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(drives_path, tmp_path, changes, words):
    wanted = experiment(drives_path, **{**MOMENTS, **changes})
    with pytest.raises(ConfigError, match=words):
        fedfsd.simulate(wanted, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
