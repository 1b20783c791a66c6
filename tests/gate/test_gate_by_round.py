"""Noise that differs by round: drawn, judged, booked, refused and repeated round by round."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from books import keep_books
from engine.small import TASK, Plain, vehicles
from plan import sample
from plan.sample import REGION, SMALL, planned

from fedfsd.engine.local import model_on, train
from fedfsd.engine.randomness import RoundKey
from fedfsd.errors import PlanError, RefusedError
from fedfsd.gate.gate import Gate, judge, max_update_norm, witness_std
from fedfsd.gate.policy import Policy, objections
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import WITNESS

NOISE = (1.5, 1.75, 3.0, 6.0)
SHAPES = {name: tuple(value.shape) for name, value in Plain().named_parameters()} | {WITNESS: (4096,)}
PLAN = sample.by_round(NOISE, SHAPES, local_steps=3)


def update(
    round: int, *, noise_of: plans.Plan = PLAN, noise_round: int | None = None, key: bytes = bytes(32)
):
    """What a region makes of a round that adds the noise of another plan or of another round."""
    arrays = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    bound = RoundKey(key, REGION, PLAN.hash, noise_round or round, "x")
    ours = model_on(Plain(), TASK.loss, torch.device("cpu"))
    return train(ours, vehicles([3] * 30), arrays, noise_of, bound)


@pytest.mark.parametrize("round", [1, 2, 3, 4])
def test_the_planned_noise_passes_in_its_round_and_in_no_other(round):
    judge(update(round), PLAN, REGION, round)
    for other in {1, 2, 3, 4} - {round}:
        with pytest.raises(RefusedError):
            judge(update(round), PLAN, REGION, other)


def test_a_region_that_adds_flat_noise_is_caught():
    """Of the same loss at the filter's order, so that only the scale in each round gives it away."""
    flat = planned(
        SHAPES, num_rounds=4, local_steps=3, noise_multiplier=(sum(s**-2 for s in NOISE) / 4) ** -0.5
    )
    caught = 0
    for round in (1, 2, 3, 4):
        try:
            judge(update(round, noise_of=flat), PLAN, REGION, round)
        except RefusedError:
            caught += 1
    assert caught == 4


def test_the_witness_scale_and_the_longest_update_follow_the_round():
    scales = [witness_std(PLAN, REGION, round) for round in (1, 2, 3, 4)]
    assert np.array(scales) / scales[0] == pytest.approx(np.array(NOISE) / NOISE[0])
    assert sorted(max_update_norm(PLAN, REGION, round) for round in (1, 2, 3, 4)) == [
        max_update_norm(PLAN, REGION, round) for round in (1, 2, 3, 4)
    ]


def test_a_round_that_is_trained_again_has_the_same_noise():
    """After a kill the key is the same, and so is every byte; another round's noise is another draw."""
    first, again = update(2), update(2)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    other = update(3)[WITNESS] / witness_std(PLAN, REGION, 3)
    mine = first[WITNESS] / witness_std(PLAN, REGION, 2)
    assert abs(np.corrcoef(mine, other)[0, 1]) < 0.1
    assert abs(np.corrcoef(mine, update(2, key=b"k" * 32)[WITNESS])[0, 1]) < 0.1


def test_the_policy_refuses_a_plan_for_its_least_noise_alone():
    assert objections(Policy(), PLAN, REGION) == []
    low = sample.by_round((6.0, 0.4, 6.0), epsilon=1.0)
    assert any("of round 2 is below the floor 0.5" in one for one in objections(Policy(), low, REGION))
    stated = sample.by_round(NOISE, epsilon=0.5)
    assert any("epsilon is stated as 0.5" in one for one in objections(Policy(), stated, REGION))


def test_rounds_are_released_under_their_own_event(tmp_path):
    keep_books(tmp_path, REGION, PLAN)
    gate = Gate(REGION, Policy(), tmp_path)
    arrays = {entry.name: np.zeros(entry.shape, np.float32) for entry in PLAN.model.arrays}
    for round in (1, 2):
        booked = gate.reserve(PLAN, round, arrays)
        again = gate.reserve(PLAN, round, arrays)
        assert again == booked
        gate.release(update(round), booked, PLAN)
    run = gate.ledger.state.runs[PLAN.hash]
    assert [run.bookings[round].entry.event.noise_multiplier for round in (1, 2)] == [1.5, 1.75]


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multipliers": [1.5, 1.75]},
        {"noise_multipliers": [1.5, 2.0, 3.0, 0.0]},
        {"noise_multipliers": [1.5, 2.0, 3.0, "6"]},
        {"kind": "gaussian"},
        {"kind": "laplace"},
        {"more": 1},
    ],
)
def test_plans_with_other_noise_are_refused(change):
    from fedfsd import canonical

    document = PLAN.as_written()
    document["regions"][REGION]["mechanism"] |= change
    with pytest.raises(PlanError):
        plans.read(canonical.encode(document).decode())
    both = PLAN.as_written()
    both["regions"][REGION]["noise_multiplier"] = 2.0
    with pytest.raises(PlanError):
        plans.read(canonical.encode(both).decode())
    with pytest.raises(PlanError):
        plans.read(canonical.encode({**PLAN.as_written(), "format": 1}).decode())


def test_a_flat_plan_is_written_as_it_always_was():
    """Pinned: the document that release 0.1.0 wrote for these constants."""
    plan = planned(SMALL, epsilon=1.0)
    assert plan.format == 1
    assert "mechanism" not in plan.as_written()["regions"][REGION]
    assert plan.hash == PINNED


PINNED = "2e6156382da954cf07e8acee1e21e4a922f4d7d211dec6bb9cfa3ae3b4cb5858"
