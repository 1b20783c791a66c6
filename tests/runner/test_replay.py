"""A replay finds what is planted in the private step, and nothing in the right one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from engine.small import SPEC, TASK, TwoPaths
from plan.sample import REGION, by_round, planned, with_canaries
from torch import nn

from experiments.planted.faults import BUGS, WITNESS_SIZE
from fedfsd.engine import canary, local, sampler
from fedfsd.engine.canary import Canaries
from fedfsd.errors import RefusedError
from fedfsd.plan.plan import CANARIES, WITNESS, Plan
from fedfsd.runner import replay


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in model.named_parameters()} | {WITNESS: (WITNESS_SIZE,)}


def small_plan(**changes) -> Plan:
    return planned(shapes(TwoPaths()), **{"roster": 40, "max_grad_norm": 0.05, **changes})


def changed(plan: Plan, **of_region) -> Plan:
    mine = plan.region(REGION).model_copy(update=of_region)
    return plan.model_copy(update={"format": 3, "regions": {REGION: mine}})


def replayed(plan: Plan | None = None, model: nn.Module | None = None) -> replay.Replayed:
    torch.manual_seed(3)
    plan, model = plan or small_plan(), model or TwoPaths()
    gradient = local.model_on(model, TASK.loss, torch.device("cpu"))
    arrays = {name: one.detach().numpy().copy() for name, one in model.named_parameters()}
    arrays[WITNESS] = np.zeros(WITNESS_SIZE, np.float32)
    return replay.replay(gradient, model, TASK, plan, REGION, arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sample_rate": 1.0},
        {"local_steps": 1, "optimizer__momentum": 0.0},
        {"local_steps": 7},
        {"roster": 300, "sample_rate": 0.05},
        {"roster": 1},
        {"windows_per_vehicle": 1},
    ],
)
def test_the_right_mechanism_passes(changes):
    found = replayed(small_plan(**changes))
    assert found.faults == ()
    assert found.runs >= 7


def test_noise_that_differs_by_round_passes_with_its_own_rounds_noise():
    assert replayed(by_round((1.0, 2.0, 3.0), shapes(TwoPaths()), roster=40)).faults == ()


def test_a_model_whose_gradients_opacus_finds_passes():
    model = TwoPaths()
    model.body[1] = nn.RMSNorm(8)
    assert replayed(planned(shapes(model), roster=40, max_grad_norm=0.05), model).faults == ()


class Wide(TwoPaths):
    """With a layer whose gradients are summed as products, by groups in float32; its inputs are alike."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2 * SPEC.history, 320), nn.ReLU(), nn.Linear(320, 96), nn.ReLU())
        self.head = nn.Linear(96, 2 * 2 * SPEC.future + 2)
        self.share = share

    def forward(self, history: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(10 + history + self.share * history.nan_to_num().mean())


def test_sums_in_float32_pass_and_a_model_that_mixes_vehicles_does_not():
    """A group's rounding depends on all who are in it, far below what a model does that mixes them."""
    for share, fault in ((0.0, False), (0.1, True)):
        model = Wide(share)
        plan = planned(shapes(model), roster=64, sample_rate=1.0, max_grad_norm=0.05, local_steps=1)
        faults = replayed(plan, model).faults
        assert ("a vehicle that moves the sum by what depends on the others" in faults) == fault, faults
        assert fault or not faults


def test_a_region_that_is_asked_in_some_rounds_passes():
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5, "schedule": "cosine"}
    plan = small_plan(optimizer=optimizer)
    assert replayed(changed(plan, rounds=(1, 3))).faults == ()
    assert replayed(changed(plan, rounds=(3,))).faults == ()


@pytest.mark.parametrize("changes", [{}, {"roster": 300, "sample_rate": 0.05}, {"windows_per_vehicle": 2}])
def test_packed_windows_pass(changes):
    assert replayed(changed(small_plan(**changes), packed=True)).faults == ()


def test_packing_that_leaves_somebody_out_is_found(monkeypatch):
    def pack(shapes, taken):
        yield from ((lane, chosen[1:]) for lane, chosen in sampler.pack(shapes, taken))

    monkeypatch.setattr(local, "pack", pack)
    assert any("other vehicles" in one for one in replayed(changed(small_plan(), packed=True)).faults)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_fault_is_found(bug, monkeypatch):
    BUGS[bug](monkeypatch)
    found = replayed(small_plan(local_steps=3))
    assert found.faults, bug


def test_dropout_that_is_on_is_found(monkeypatch):
    model = TwoPaths()
    model.body.append(nn.Dropout(0.5))
    gradient = local.model_on(model, TASK.loss, torch.device("cpu"))
    model.body[-1].p = 0.5
    monkeypatch.setattr(local, "model_on", lambda *_: gradient)
    assert "two runs of one round on one table with one key that differ" in replayed(model=model).faults


def test_a_buffer_that_moves_is_found():
    class Counting(TwoPaths):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, history):
            self.seen += len(history)
            return super().forward(history)

    assert "a buffer of the model that moves" in replayed(model=Counting()).faults


def test_a_fault_ends_the_round_before_it_is_booked(monkeypatch):
    BUGS["noise x 0.97"](monkeypatch)
    model, plan = TwoPaths(), small_plan()
    gradient = local.model_on(model, TASK.loss, torch.device("cpu"))
    arrays = {name: one.detach().numpy().copy() for name, one in model.named_parameters()}
    with pytest.raises(RefusedError, match=r"replay.*noise other than the plan's"):
        replay.demand(gradient, model, TASK, plan, REGION, arrays | {WITNESS: np.zeros(WITNESS_SIZE, "<f4")})


# Canaries beside the vehicles of a plan.


def with_some(plan: Plan, count: int = 48) -> tuple[Plan, Canaries]:
    found = with_canaries(plan, count)
    return found, canary.of(found, REGION)


def replayed_with_canaries(plan: Plan, *, count: int = 48) -> replay.Replayed:
    torch.manual_seed(3)
    plan, beside = with_some(plan, count)
    model = TwoPaths()
    gradient = local.model_on(model, TASK.loss, torch.device("cpu"), canaries=beside)
    arrays = {name: one.detach().numpy().copy() for name, one in model.named_parameters()}
    arrays |= {CANARIES: np.zeros(count, np.float32), WITNESS: np.zeros(WITNESS_SIZE, np.float32)}
    return replay.replay(gradient, model, TASK, plan, REGION, arrays)


@pytest.mark.parametrize("changes", [{}, {"packed": True}])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_plan_with_canaries_passes(changes, count):
    assert replayed_with_canaries(changed(small_plan(), **changes), count=count).faults == ()


@pytest.mark.parametrize(
    "bug",
    ["no clipping", "twice the sample rate", "momentum before noise", "a vehicle that is not finite counts"],
)
def test_its_faults_are_found(bug, monkeypatch):
    BUGS[bug](monkeypatch)
    assert replayed_with_canaries(small_plan()).faults


def test_canaries_that_move_too_little_are_found(monkeypatch):
    original = Canaries.accompany

    def weak(self, model, loss):
        return original(dataclasses.replace(self, max_grad_norm=self.max_grad_norm / 50), model, loss)

    monkeypatch.setattr(Canaries, "accompany", weak)
    assert replayed_with_canaries(small_plan()).faults == (
        "a canary that moves the sum by something else than C",
    )


def test_a_model_that_spoils_them_is_refused_before_a_round():
    """Its padding example has no finite gradient."""

    class Spoiling(TwoPaths):
        def forward(self, history):
            return super().forward(history / history.flatten(1).norm(dim=1)[:, None, None])

    torch.manual_seed(3)
    plan, beside = with_some(small_plan())
    model = Spoiling()
    gradient = local.model_on(model, TASK.loss, torch.device("cpu"), canaries=beside)
    arrays = {one.name: np.zeros(one.shape, np.float32) for one in plan.model.arrays}
    arrays |= {name: one.detach().numpy().copy() for name, one in model.named_parameters()}
    with pytest.raises(RefusedError, match="a canary that moves the sum by something else than C"):
        replay.demand(gradient, model, TASK, plan, REGION, arrays)
