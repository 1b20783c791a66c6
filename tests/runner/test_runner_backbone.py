"""A runner and a plan that trains a part of its model: where the frozen weights come from, and who looks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from books import keep_books
from conftest import drives
from plan.sample import REGION
from runner.runner_kit import ARRAYS, listening, rehearsal, threaded, train_folder

from fedfsd import canonical
from fedfsd.drive import table
from fedfsd.engine import backbone
from fedfsd.errors import FedfsdError, RefusedError
from fedfsd.gate.gate import Gate
from fedfsd.gate.policy import BackbonePin, Policy, declared
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.runner import replay
from fedfsd.runner.region import LOG, RegionConfig, open_region, run_round
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec

HEAD = ("head.weight", "head.bias")
MINE = {name: ARRAYS[name] for name in (*HEAD, WITNESS)}


def weights() -> bytes:
    """Of a body that somebody trained on public data."""
    model = registry.build("mlp", {}, WindowSpec(), seed=1)
    with torch.no_grad():
        for parameter in model.body.parameters():
            parameter.add_(0.25)
    return backbone.packed(model, HEAD)


def plan_of(content: bytes) -> Plan:
    """A rehearsal that trains the head on these weights."""
    whole = rehearsal()
    part = whole.model.model_dump() | {
        "arrays": [one.model_dump() for one in whole.model.arrays if one.name in MINE],
        "backbone": {"sha256": canonical.sha256(content), "size": 72, "source": "file"},
    }
    fields = {name: getattr(whole, name) for name in Plan.model_fields if name != "format"}
    return Plan(**(fields | {"model": type(whole.model).model_validate(part)}))


def gate_of(folder: Path, plan: Plan, *sha256: str) -> Gate:
    """A gate whose policy names these weights."""
    keep_books(folder, REGION, plan)
    pins = tuple(BackbonePin(name="body", sha256=one) for one in sha256)
    policy = Policy(roster=30, identity="physical", backbones=pins)
    return Gate(REGION, declared(policy, "policy", test_only=True), folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tables") / "synthetic.parquet"
    table.write(drives({REGION: 40}, origin="synthetic"), path)
    return str(path)


def test_a_runner_takes_the_weights_of_the_plans_hash_and_waits_for_them_unbooked(tmp_path, data):
    content = weights()
    plan = plan_of(content)
    keep_books(tmp_path / "here", REGION, plan)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.safetensors").write_bytes(content)
    here = RegionConfig(
        REGION, data, str(tmp_path / "here"), "cpu", backbones=str(tmp_path / "weights"), simulated=True
    )
    expected = run_round(open_region(here), MINE, plan, 1)
    gate, train = gate_of(tmp_path / "gate", plan, plan.model.backbone.sha256), train_folder(tmp_path, data)
    there = train / "backbones"
    there.mkdir()
    (there / "other.safetensors").write_bytes(content[:-1] + b"\x00")
    with (
        listening(gate, tmp_path) as runner,
        threaded(train, data, backbones=str(there)),
    ):
        with pytest.raises(FedfsdError):
            runner.round(plan, 1, MINE)
        assert not gate.ledger.state.runs[plan.hash].bookings
        assert f"backbone {plan.model.backbone.sha256[:16]}" in (train / LOG).read_text()
        (there / "mine.safetensors").write_bytes(content)
        released = runner.round(plan, 1, MINE)
    assert released.content == expected.content
    assert len(released.content) == 4 * plan.model.size


def test_weights_that_the_policy_does_not_name_never_reach_a_runner(tmp_path, data):
    plan = plan_of(weights())
    gate = gate_of(tmp_path / "gate", plan, "0" * 64)
    with listening(gate, tmp_path) as runner, threaded(train_folder(tmp_path, data), data):
        with pytest.raises(RefusedError, match="is not listed under backbones in the policy"):
            runner.round(plan, 1, MINE)
        assert not gate.ledger.state.runs[plan.hash].bookings


def test_a_replay_needs_no_weights_and_finds_no_fault():
    """What is frozen is frozen whatever its values are, so that an auditor can replay without the file."""
    plan = plan_of(weights())
    found = replay.of_plan(plan, REGION, "cpu")
    assert found.faults == ()
    assert found.runs > 10
    assert plan.model.size == 144 + 4096
