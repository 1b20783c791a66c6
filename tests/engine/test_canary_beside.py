"""Canaries beside vehicles: each side of the sum is what it would be without the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.small import TASK, TwoPaths, vehicles
from plan.sample import REGION, planned, with_canaries

from fedfsd.engine import canary, local, sampler
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.gate.policy import Policy
from fedfsd.mechanism.kind import Mechanism
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.task import registry

COUNTS = [3, 0, 1, 4, 2, 0, 4, 1, 2, 3]
COUNT, WITNESS_SIZE = 7, 16
COINS = np.array([True, False, True, True, False, True, True])
LAST_BITS = 2.0**-52
"""Of sums up to 0.5: float64 may be added up in another order, by where it lies in memory."""
KEY = RoundKey(b"k" * 32, REGION, 64 * "0", 1, "")


def shapes() -> dict[str, tuple[int, ...]]:
    found = {name: tuple(one.shape) for name, one in TwoPaths().named_parameters()}
    return found | {WITNESS: (WITNESS_SIZE,)}


def plan_of(**changes) -> Plan:
    plan = planned(shapes(), roster=len(COUNTS), max_grad_norm=0.05, **changes)
    return with_canaries(plan, COUNT)


def model() -> TwoPaths:
    torch.manual_seed(3)
    return TwoPaths()


def summed(monkeypatch, plan, data, *, coins=COINS, engine="auto", step=0) -> np.ndarray:
    """The sum that gets noise in one step."""
    sums = []
    monkeypatch.setattr(
        Mechanism, "noised", lambda _, total, stream, *, round: sums.append(total.clone()) or total
    )
    beside = canary.of(plan, REGION)
    gradient = local.model_on(model(), TASK.loss, data.device, engine=engine, canaries=beside)
    local.private_step(
        gradient,
        canary.tossed(beside.beside(data), coins),
        plan.region(REGION),
        KEY,
        step=step,
        size=plan.model.size,
    )
    (total,) = sums
    return total.numpy()


def by_hand(plan, data, step) -> np.ndarray:
    """The same by autograd alone, one vehicle after another; the key's own draws."""
    mine = plan.region(REGION)
    draws = KEY.stream("vehicles", step).uniform(COUNT + len(COUNTS))
    assert sampler.sample_vehicles(KEY.stream("vehicles", step), 17, 0.5).tolist() == [
        slot for slot, one in enumerate(draws) if one < 0.5
    ]
    bound, net = mine.noise.clipping_norm(1, roster=17, size=plan.model.size), model()
    total = np.zeros(plan.model.size)
    parameters = sum(one.numel() for one in net.parameters())
    for slot in np.flatnonzero(draws < mine.sample_rate):
        if slot < COUNT:
            total[parameters + slot] = bound * (COINS[slot] and slot != COUNT - 1)
            continue
        first, owned = data.first[slot - COUNT], data.counts[slot - COUNT]
        if not owned:
            continue
        rows = slice(first, first + owned)
        inputs, targets = data.inputs["history"][rows], {"future": data.targets["future"][rows]}
        loss = TASK.loss(net(inputs), targets).mean()
        mean = torch.cat([one.flatten() for one in torch.autograd.grad(loss, net.parameters())]).double()
        total[:parameters] += (mean * min(1.0, bound / float(mean.norm()))).numpy()
    return total


@pytest.mark.parametrize("engine", ["auto", "hooks"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_step_is_what_autograd_makes_of_every_vehicle_and_c_for_every_canary(monkeypatch, engine, step):
    plan, data = plan_of(), vehicles(COUNTS)
    found, expected = summed(monkeypatch, plan, data, engine=engine, step=step), by_hand(plan, data, step)
    assert np.abs(found - expected).max() < 1e-6
    assert not found[-WITNESS_SIZE:].any()


@pytest.mark.parametrize("packed", [False, True])
def test_neither_side_moves_the_other(monkeypatch, packed):
    plan, data = plan_of(), vehicles(COUNTS)
    if packed:
        mine = plan.region(REGION).model_copy(update={"packed": True})
        plan = plan.model_copy(update={"regions": {REGION: mine}})
    start = plan.model.parameters
    both = summed(monkeypatch, plan, data)
    nobody = summed(monkeypatch, plan, vehicles([0] * len(COUNTS)))
    assert np.abs(both[start:] - nobody[start:]).max() <= LAST_BITS
    assert not nobody[:start].any()
    other = summed(monkeypatch, plan, data, coins=~COINS)
    assert np.abs(other[:start] - both[:start]).max() <= LAST_BITS
    spoilt = vehicles(COUNTS)
    spoilt.inputs["history"][:-1] = torch.nan
    assert np.abs(summed(monkeypatch, plan, spoilt) - nobody).max() <= LAST_BITS


def test_a_canary_slot_does_not_move_with_vehicles_beyond_the_roster():
    few, many = (
        canary.of(plan_of(), REGION).beside(vehicles(counts)) for counts in (COUNTS, [*COUNTS, 1, 1])
    )
    assert few.counts[:COUNT].tolist() == many.counts[:COUNT].tolist() == [4] * COUNT
    assert (few.slots, many.slots) == (17, 19)


def test_precision_and_padding_leave_canaries_as_they_are(monkeypatch):
    plan, data = plan_of(), vehicles(COUNTS)
    beside = canary.of(plan, REGION).beside(data)
    rows = torch.tensor([[0, data.padding], [data.padding + 1, data.padding + 4 * 6 + 1]])
    found = beside.inputs_of(rows)
    assert found["canary"].tolist() == [[-1, -1], [0, 6]]
    assert torch.equal(found["history"][1], data.inputs["history"][[data.padding] * 2])
    assert torch.equal(beside.targets_of(rows)["future"][0, 0], data.targets["future"][0])


@pytest.mark.parametrize("name", ["mlp", "gru", "transformer"])
@pytest.mark.parametrize("weights", ["high", "low", "mixed"])
def test_no_weights_that_a_policy_admits_make_canaries_count_nothing(name, weights):
    """A coordinator chooses the weights: a gradient that is not finite would look like another mechanism."""
    task, most = registry.of("forecasting", {}), Policy().max_inbound_magnitude
    nothing = [
        {key: torch.zeros_like(one[:1, 0]) for key, one in part.items()}
        for part in task.synthetic(torch.Generator().manual_seed(1))
    ]
    none = np.zeros(0, np.int64)
    beside = canary.Canaries(COUNT, COUNT, 2, 0.05)
    data = beside.beside(VehicleData(*nothing, none, none, torch.device("cpu")))
    gradient = local.model_on(task.model(name, {}, seed=1), task.loss, data.device, canaries=beside)
    signs = {"high": 1.0, "low": -1.0, "mixed": torch.randn(gradient.size).sign()}
    gradient.set_parameters(most * signs[weights] * torch.ones(gradient.size))
    window, taken = np.tile(np.arange(2), (COUNT, 1)), np.ones((COUNT, 2), bool)
    total = gradient.clipped_sum(data, np.arange(COUNT), window, taken, max_grad_norm=0.05)
    assert not total[:-COUNT].any()
    assert total[-COUNT:].tolist() == pytest.approx([0.05] * (COUNT - 1) + [0.0], rel=1e-6)
