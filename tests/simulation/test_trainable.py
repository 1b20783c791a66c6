"""Runs in which a part of the model is trained: what crosses, what is left behind, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import experiment_of
from federation import Federation
from safetensors.torch import load_file, save_file
from simulation.test_real import ROSTERS, start
from simulation.test_run import experiment

import fedfsd
from fedfsd import canonical
from fedfsd.audit.evidence import load as load_evidence
from fedfsd.audit.verify import verify
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.errors import ConfigError, FedfsdError, ModelError, NotReadyError
from fedfsd.gate.policy import BackbonePin, Policy, objections
from fedfsd.ledger.key import SigningKey
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import WITNESS
from fedfsd.runner.region import open_region, run_round
from fedfsd.simulation import real
from fedfsd.simulation.prepare import prepare

HEAD = ["head.weight", "head.bias"]


@pytest.fixture
def small(drives_path):
    return lambda **changes: experiment(drives_path, **{"model__trainable": "head", **changes})


@pytest.fixture(scope="module")
def run(drives_path, tmp_path_factory):
    part = {"model__trainable": "head", "training__num_rounds": 2, "data__regions": ["CN"]}
    wanted = experiment(drives_path, mode="private", **part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedfsd.report.page._figures", lambda _: {})
        return fedfsd.simulate(wanted, output=tmp_path_factory.mktemp("head") / "run")


def plan_of(path: Path):
    return plans.read((path / "plan.json").read_text())


# What crosses, and what is left.


def test_only_what_trains_crosses(run):
    plan = plan_of(run.path)
    assert [one.name for one in plan.model.arrays] == [*HEAD, WITNESS]
    assert plan.format == 3
    lines = [json.loads(line) for line in (run.path / "rounds.jsonl").read_text().splitlines()]
    assert {line["regions"]["CN"]["bytes"] for line in lines if line["round"]} == {4 * (144 + 512)}
    assert run.metrics["parameters"] == 144
    assert "144 parameters trained, 72 frozen" in run.report.read_text()
    assert run.metrics["backbone"] == {"sha256": plan.model.backbone.sha256, "parameters": 72}


def test_the_model_is_whole_and_the_backbone_is_what_pretraining_made(run, drives_path):
    model, frozen = load_file(run.path / "model.safetensors"), load_file(run.path / "backbone.safetensors")
    content = (run.path / "backbone.safetensors").read_bytes()
    assert canonical.sha256(content) == plan_of(run.path).model.backbone.sha256
    assert model.keys() == {*frozen, *HEAD}
    assert all(torch.equal(model[name], value) for name, value in frozen.items())
    net = run.model()
    for name, value in net.named_parameters():
        assert torch.equal(value, model[name])
    started = prepare(load(Experiment, experiment(drives_path, training__num_rounds=2)))
    for name, value in frozen.items():
        np.testing.assert_array_equal(value.numpy(), started.initial[name])
    assert any(not np.array_equal(model[name].numpy(), started.initial[name]) for name in HEAD)


def test_the_auditor_accepts_it_and_names_the_backbone(run):
    bundles = sorted((run.path / "bundles").glob("*.zip"))
    found = load_evidence(bundles, receipts=run.path / "receipts.json", trust=run.path / "trust.keys")
    assert verify(found).headline == "holds"


# Where it comes from.


def test_a_whole_model_is_a_backbone_and_a_start(small, run):
    """Of a file with everything the head is taken, too; training on public data leaves the backbone alone."""
    file = str(run.path / "model.safetensors")
    mine = prepare(load(Experiment, small(model__backbone=file, pretraining__path="none")))
    assert mine.plan.model.backbone == plan_of(run.path).model.backbone
    given = load_file(file)
    for name in HEAD:
        np.testing.assert_array_equal(mine.initial[name], given[name].numpy())
    trained = prepare(load(Experiment, small(model__backbone=file)))
    assert trained.plan.model.backbone == mine.plan.model.backbone
    assert not np.array_equal(trained.initial[HEAD[0]], mine.initial[HEAD[0]])


@pytest.mark.parametrize("backbone", ["model", "pretraining"])
def test_what_the_models_code_makes_needs_no_file(small, backbone):
    wanted = small(
        model__backbone=backbone, pretraining__path="none" if backbone == "pretraining" else "public"
    )
    found = prepare(load(Experiment, wanted))
    assert found.plan.model.backbone.source == "model"


def test_without_the_keys_nothing_is_new(drives_path):
    """The default is the plan and the document of before."""
    usual = load(Experiment, experiment(drives_path))
    said = load(Experiment, experiment(drives_path, model__trainable="all", model__backbone="pretraining"))
    assert usual.document() == said.document()
    assert "trainable" not in usual.document()["model"]
    one, other = prepare(usual).plan, prepare(load(Experiment, {**experiment(drives_path), "format": 2})).plan
    assert one.document() == other.document()
    assert "backbone" not in one.as_written()["model"]
    assert one.format < 3
    part = load(Experiment, experiment(drives_path, model__trainable=["head"]))
    assert part.document()["format"] == 3
    assert Experiment.resolved(part.document()) == part


def test_a_plan_says_its_backbone_in_format_3_alone(small):
    plan = prepare(load(Experiment, small())).plan
    assert plans.read(plan.document()) == plan
    written = plan.as_written()
    for change in ({"format": 2}, {"model": {**written["model"], "backbone": None}}):
        with pytest.raises(FedfsdError):
            plans.read(canonical.encode(written | change).decode())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__trainable": "heads"}, "model.trainable: got 'heads', which names no parameter"),
        ({"model__trainable": []}, "model.trainable: got an empty list"),
        ({"model__trainable": "all", "model__backbone": "model"}, "model.backbone: got 'model'"),
        ({"model__backbone": "nowhere.safetensors"}, "model.backbone: no readable file nowhere.safetensors"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(small, tmp_path, changes, words):
    with pytest.raises(ConfigError) as refused:
        fedfsd.simulate(small(**changes), output=tmp_path / "run")
    assert words in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_backbone_of_another_model_is_refused(small, tmp_path):
    save_file({"body.0.weight": torch.zeros(8, 8)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other.safetensors: got weights without body\.0\.bias"):
        prepare(load(Experiment, small(model__backbone=str(tmp_path / "other.safetensors"))))


# The region's side.


def test_a_policy_names_the_backbones_it_knows(small):
    plan = prepare(load(Experiment, small(mode="private"))).plan
    frozen = plan.model.backbone
    policy = Policy(min_witness_size=0)
    (said,) = objections(policy, plan, "CN")
    assert said == f"its backbone {frozen.sha256[:16]} is not listed under backbones in the policy"
    for pins, good in (((("a", "0" * 64),), False), ((("a", "0" * 64), ("b", frozen.sha256)), True)):
        listed = tuple(BackbonePin(name=name, sha256=sha256) for name, sha256 in pins)
        assert (not objections(policy.model_copy(update={"backbones": listed}), plan, "CN")) == good
    own = frozen.model_copy(update={"source": "model"})  # the reviewed code makes it
    changed = plan.model_copy(update={"model": plan.model.model_copy(update={"backbone": own})})
    assert objections(policy, changed, "CN") == []


def test_a_region_without_the_file_refuses_before_anything_is_booked(small, tmp_path):
    federation = Federation(tmp_path, small())
    (tmp_path / "backbone.safetensors").unlink()
    config = next(iter(federation.configs.values()))
    region = open_region(config)
    with pytest.raises(NotReadyError, match="no file with this hash"):
        run_round(region, federation.prepared.initial, federation.plan, 1)
    assert not region.gate.ledger.state.runs[federation.plan.hash].bookings


@pytest.mark.usefixtures("undrawn")
def test_a_real_run_is_conducted_with_its_backbone(tmp_path, drives_path):
    written = experiment_of(drives_path, rounds=2, rosters=ROSTERS)
    written["model"] = {**written.get("model", {}), "trainable": "head"}
    hub = tmp_path / "hub"
    for name in ("receipts", "heads"):
        (hub / name).mkdir(parents=True)
    SigningKey.generate("fedfsd/coordinator/roads").write(hub / "coordinator.key")
    where, plan = start(written, tmp_path / "run")
    assert canonical.sha256(where.backbone.read_bytes()) == plan.model.backbone.sha256
    real.serve(Federation(tmp_path / "regions", written), where.path, hub)
    model = load_file(where.model)
    assert model.keys() == {*HEAD, *load_file(where.backbone)}
    assert where.read("metrics.json")["regions"]["CN"]["rounds_released"] == 2


class Strange(torch.nn.Linear):
    """A layer of somebody's own."""


def test_the_fast_engine_refuses_a_run_before_anything_is_written(drives_path, tmp_path, monkeypatch):
    monkeypatch.setattr("fedfsd.task.forecasting.model.mlp.nn.Linear", Strange)
    wanted = experiment(drives_path, training__engine="fast")
    with pytest.raises(ModelError, match=r"model parameter body\.0\.weight: got a layer \(Strange\)"):
        fedfsd.simulate(wanted, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Where that layer is frozen, nothing is in the way; a head of that kind is named.
    with pytest.raises(ModelError, match=r"model parameter head\.weight"):
        prepare(load(Experiment, {**wanted, "model": {"trainable": "head"}}))


def test_a_region_asks_its_own_engine_before_anything_is_booked(tmp_path, small, monkeypatch):
    federation = Federation(tmp_path, small())
    monkeypatch.setattr("fedfsd.task.forecasting.model.mlp.nn.Linear", Strange)
    config = replace(next(iter(federation.configs.values())), engine="fast")
    region = open_region(config)
    with pytest.raises(ModelError, match="Strange"):
        run_round(region, federation.prepared.initial, federation.plan, 1)
    assert not region.gate.ledger.state.runs[federation.plan.hash].bookings
