"""What ``fedfsd plan`` says is what the run would do."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import drives

from fedfsd.cli.plan import _text as plan_text
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.errors import DataError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.simulation.prepare import prepare
from fedfsd.simulation.preview import preview


@pytest.fixture
def experiment(drives_path):
    def make(**changes):
        document = {
            "name": "x",
            "data": {"path": drives_path},
            "pretraining": {"path": "none"},
            "privacy": {"noise_multiplier": 2.0, "target_delta": 1e-3, "sample_rate": 0.25},
            "training": {"num_rounds": 4, "local_steps": 2},
        }
        return load(Experiment, {**document, **changes})

    return make


def test_the_figures_are_those_of_the_plan(experiment):
    found, prepared = preview(experiment()), prepare(experiment())
    plan = prepared.plan
    assert found["bytes_out"] == len(gate_arrays.to_bytes(prepared.initial, plan.model.arrays))
    assert found["parameters"] + found["witness_size"] == plan.model.size
    for name, region in found["regions"].items():
        mine = plan.region(name)
        assert region["epsilon"] == mine.epsilon
        assert region["vehicles"] == mine.roster
        assert region["roster_counted"]
        assert region["accepted"]
        assert "one vehicle" in region["statement"]


def test_noise_to_signal_is_the_length_of_the_noise_that_a_step_adds(experiment):
    privacy = {"target_delta": 1e-3, "sample_rate": 0.25, "max_grad_norm": 2.0, "max_noise_std": 2.0}
    found = preview(experiment(privacy=privacy, regions={"CN": {"target_epsilon": 3}, "EU": {}}))
    random = np.random.default_rng(1)
    noise = {}
    for name, region in found["regions"].items():
        clip = region["max_grad_norm"]
        scale = region["noise_multiplier"] * clip / (found["sample_rate"] * region["vehicles"])
        noise[name] = scale * random.normal(size=(200, found["parameters"]))
        length = np.linalg.norm(noise[name], axis=1).mean()
        assert region["noise_to_signal"] == pytest.approx(length / clip, rel=0.02)
    weight = {name: region["weight"] for name, region in found["regions"].items()}
    signal = sum(weight[name] * region["max_grad_norm"] for name, region in found["regions"].items())
    average = sum(weight[name] * part for name, part in noise.items())
    length = np.linalg.norm(average, axis=1).mean()
    assert found["noise_to_signal"] == pytest.approx(length / signal, rel=0.02)


def test_a_larger_model_costs_more(experiment):
    small, large = (preview(experiment(model={"options": {"width": width}})) for width in (4, 64))
    for figure in ("noise_to_signal", "bytes_in", "bytes_out"):
        assert small[figure] < large[figure]
    assert small["regions"]["CN"]["memory_bytes"] < large["regions"]["CN"]["memory_bytes"]


@pytest.mark.parametrize(("mode", "word"), [("rehearsal", "No guarantee"), ("none", "Not private")])
def test_nothing_is_promised_where_nothing_is_protected(experiment, mode, word):
    found = preview(experiment(mode=mode))
    assert found["statement"].startswith(word)
    for region in found["regions"].values():
        assert region["statement"].startswith(word)
        assert region["epsilon_lifetime"] is None
        assert region["accepted"]  # by a simulated region; a real one takes private plans alone


def test_the_policy_of_the_region_decides(experiment, tmp_path):
    policy = tmp_path / "strict.toml"
    policy.write_text("max_epsilon = 0.01\n", encoding="utf-8")
    regions = preview(experiment(regions={"CN": {"policy": str(policy)}, "EU": {}}))["regions"]
    assert any("epsilon" in one for one in regions["CN"]["objections"])
    assert regions["EU"]["accepted"]


def test_pretraining_is_checked_and_not_done(experiment, tmp_path):
    path = tmp_path / "real.parquet"
    table.write(drives({"PUBLIC": 4}, seed=7, origin="recorded"), path)
    with pytest.raises(DataError):
        preview(experiment(pretraining={"path": str(path)}))
    table.write(drives({"PUBLIC": 4}, seed=7), path)
    ten_years = {"path": str(path), "steps": 10**12}
    assert preview(experiment(pretraining=ten_years))["regions"]


def test_what_nobody_could_notice_is_said(experiment, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text("round_seconds = 0.0\n", encoding="utf-8")
    asked = {"model": {"witness_size": 300}, "regions": {"CN": {"policy": str(policy)}}}
    found = preview(experiment(**asked))
    assert "300 entries" in found["unnoticed"]
    assert (found["regions"]["CN"]["round_seconds"], found["regions"]["EU"]["round_seconds"]) == (0.0, None)
    text = plan_text(found)
    assert "300 entries" in text
    assert "CN: round_seconds = 0 in its policy" in text
    assert "EU: round_seconds" not in text
    assert preview(experiment())["unnoticed"] is None


def test_a_large_delta_is_warned_of(experiment):
    privacy = {"noise_multiplier": 2.0, "sample_rate": 0.25}
    for delta in (1e-3, 1e-2):
        found = preview(experiment(privacy={**privacy, "target_delta": delta}))
        for region in found["regions"].values():
            tenth = f"above 1/{10 * region['vehicles']}, "
            assert [tenth in one for one in region["warnings"]] == [True] * (delta > 0.1 / region["vehicles"])
