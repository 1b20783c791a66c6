"""What leaves: an update of the plan's model, of a possible length, with witness noise of the right scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from books import keep_books
from engine.small import TASK, Plain, vehicles
from plan.sample import REGION, SMALL, planned, spending

from fedfsd.engine.local import model_on, train
from fedfsd.engine.noise import HostNoise
from fedfsd.engine.randomness import RoundKey, Stream
from fedfsd.errors import BudgetError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import outcome
from fedfsd.gate.gate import (
    USUAL_WITNESS,
    Gate,
    judge,
    least_noise_passed,
    max_update_norm,
    unnoticed,
    witness_std,
)
from fedfsd.gate.policy import Policy
from fedfsd.mechanism import canary, watch
from fedfsd.plan.plan import WITNESS, Plan

PLAN = planned()
STD = witness_std(PLAN, REGION, 1)


def noise(scale: float, seed: int, plan: Plan = PLAN) -> dict[str, np.ndarray]:
    """An update of nothing but noise, ``scale`` times as large as planned."""
    stream = HostNoise(Stream(seed.to_bytes(32, "big")))
    flat = (scale * STD * stream.normal(plan.model.size).numpy()).astype(np.float32)
    return gate_arrays.view(bytearray(flat.tobytes()), plan.model.arrays)


def refused(scale: float, trials: int, plan: Plan = PLAN) -> int:
    count = 0
    for seed in range(trials):
        try:
            judge(noise(scale, seed, plan), plan, REGION, 1)
        except RefusedError:
            count += 1
    return count


def test_correct_noise_is_never_refused():
    assert refused(1.0, 2000) == 0


@pytest.mark.parametrize("scale", [0.0, 0.5, 0.8, 1.25, 2.0])
def test_noise_of_another_scale_is_always_refused(scale):
    assert refused(scale, 200) == 200


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_noise_a_tenth_off_is_refused_but_for_one_in_a_hundred(scale):
    assert refused(scale, 300) >= 297


@pytest.mark.parametrize("size", [100, 300, 1024, 4096])
def test_half_of_the_noise_of_the_stated_share_passes_a_block_of_that_size(size):
    plan, share = planned(SMALL | {WITNESS: (size,)}), least_noise_passed(size)
    assert refused(share, 400, plan) == pytest.approx(200, abs=60)
    assert refused(share - 0.1, 100, plan) > refused(share, 100, plan) > refused(share + 0.1, 100, plan)
    said = unnoticed(size)
    assert (said is None) == (size >= USUAL_WITNESS)
    assert said is None or f"noise of {share:.0%} of its planned scale" in said


@pytest.mark.parametrize("size", [0, 1, 72])
def test_of_a_block_that_is_too_small_it_is_said_that_missing_noise_passes(size):
    shapes = SMALL | {WITNESS: (size,)} if size else {k: v for k, v in SMALL.items() if k != WITNESS}
    assert refused(0.0, 1, planned(shapes)) == 0
    assert "can notice that noise is missing" in unnoticed(size)
    assert Policy().min_witness_size == USUAL_WITNESS


def test_noise_stays_refused_however_it_is_spread():
    update = noise(1.0, 1)
    update[WITNESS][1000:] = 0
    with pytest.raises(RefusedError):
        judge(update, PLAN, REGION, 1)


def test_the_bounds_are_those_of_the_lemma():
    """The witness's energy may be off its mean by -z to z + z^2 / sqrt(2 n) standard deviations."""
    update = update_start(PLAN)
    size = update[WITNESS].size
    highest = 6 + 36 / np.sqrt(2 * size)
    for off, passes in ((-6.01, False), (-5.99, True), (highest - 0.01, True), (highest + 0.01, False)):
        update[WITNESS][:] = STD * np.sqrt(1 + off * np.sqrt(2 / size))
        if passes:
            judge(update, PLAN, REGION, 1)
        else:
            with pytest.raises(RefusedError, match="different scale"):
                judge(update, PLAN, REGION, 1)


def test_no_witness_is_expected_where_no_noise_is_planned():
    plan = spending(REGION, noise=0.0, mode="none", region={"max_grad_norm": None})
    assert witness_std(plan, REGION, 1) == 0
    assert max_update_norm(plan, REGION, 1) == np.inf


def test_what_reaches_a_bound_and_does_not_pass_it_may_leave(monkeypatch):
    update = next(one for one in (noise(1.0, seed) for seed in range(100)) if z_of(one) < 0)
    norm = np.sqrt(sum(float(np.vdot(part, part)) for part in update.values()))
    monkeypatch.setattr("fedfsd.gate.gate.max_update_norm", lambda *_: float(norm))
    monkeypatch.setattr("fedfsd.gate.gate.WITNESS_Z", -z_of(update))
    judge(update, PLAN, REGION, 1)
    smallest = float(np.finfo(np.float32).tiny)
    monkeypatch.setattr("fedfsd.gate.gate.witness_std", lambda *_: smallest)
    update = update_start(PLAN)
    update[WITNESS][:] = smallest
    judge(update, PLAN, REGION, 1)


def z_of(update: dict[str, np.ndarray]) -> float:
    """How far the witness's energy is off its mean, in standard deviations."""
    values = update[WITNESS].astype(np.float64)
    return float((values @ values / STD**2 - values.size) / np.sqrt(2 * values.size))


@pytest.mark.parametrize("place", [0, -1])
def test_every_entry_of_the_witness_counts(place):
    update = update_start(PLAN)
    update[WITNESS][place] = STD * np.sqrt(update[WITNESS].size)
    judge(update, PLAN, REGION, 1)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_witness_scale_is_that_of_the_real_optimizer(momentum, schedule):
    """By simulation of the noise alone, an entry at a time, and from real updates."""
    plan = planned(
        local_steps=7, num_rounds=9, optimizer__momentum=momentum, optimizer__schedule=schedule, epsilon=1.0
    )
    for round in (1, 5, 9):
        rate, steps = (
            plan.learning_rate(round),
            2.0 * 0.3 / 15 * HostNoise(Stream(bytes(32))).normal(7 * 20_000).numpy(),
        )
        velocity = total = np.zeros(20_000)
        for noisy in steps.reshape(7, -1):
            velocity = momentum * velocity + noisy
            total = total - rate * velocity
        assert total.std() / witness_std(plan, REGION, round) == pytest.approx(1, abs=0.025)


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_real_updates_pass_and_stay_below_the_longest_possible(rate):
    """Every vehicle pulls the same way with full force: the longest update that clipping allows."""
    data, model = vehicles([3] * 30), Plain()
    data.targets["future"][:] = data.targets["future"][:1] + 1e3
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()} | {WITNESS: (4096,)}
    plan = planned(shapes, local_steps=5, sample_rate=rate, epsilon=1.0)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    ours, longest = model_on(model, TASK.loss, torch.device("cpu")), 0.0
    for round in (1, 2, 3):
        update = train(ours, data, arrays, plan, RoundKey(bytes(32), REGION, plan.hash, round, "x"))
        judge(update, plan, REGION, round)
        norm = np.sqrt(sum(float(np.sum(part.astype(float) ** 2)) for part in update.values()))
        longest = max(longest, norm / max_update_norm(plan, REGION, round))
    assert longest <= 1
    assert longest > (0.5 if rate == 1 else 0)  # the bound is not a formality


def test_updates_without_clipping_are_refused():
    update = noise(1.0, 1)
    update["body.weight"] += np.float32(max_update_norm(PLAN, REGION, 1))
    with pytest.raises(RefusedError):
        judge(update, PLAN, REGION, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_updates_that_are_not_finite_or_absurd_are_refused(value):
    update = noise(1.0, 1)
    update["body.bias"][0] = value
    with pytest.raises(RefusedError):
        judge(update, PLAN, REGION, 1)


def test_noise_too_small_to_be_seen_is_refused():
    """Underflow must not read as "no noise was planned"."""
    plan = planned(optimizer__learning_rate=1e-44, max_grad_norm=1e-6)
    update = {entry.name: np.zeros(entry.shape, np.float32) for entry in plan.model.arrays}
    with pytest.raises(RefusedError, match="too small for float32"):
        judge(update, plan, REGION, 1)


def update_start(plan):
    """Zeros of the plan's arrays: the model that came in."""
    return {entry.name: np.zeros(entry.shape, np.float32) for entry in plan.model.arrays}


@pytest.mark.parametrize("what", ["names", "shape", "dtype"])
def test_only_the_plans_arrays_leave(tmp_path, what):
    keep_books(tmp_path, REGION, PLAN)
    gate = Gate(REGION, Policy(), tmp_path)
    update = noise(1.0, 1)
    if what == "names":
        update["private"] = np.zeros(3, np.float32)
    elif what == "shape":
        update["body.bias"] = update["body.bias"][:, None]
    else:
        update["body.bias"] = update["body.bias"].astype(np.float64)
    booked = gate.reserve(PLAN, 1, update_start(PLAN))
    with pytest.raises(RefusedError):
        gate.release(update, booked, PLAN)
    assert list((tmp_path / "ledger" / "outbox").iterdir()) == []
    assert gate.ledger.released(booked) is None


def test_the_release_is_the_update_and_is_booked(tmp_path):
    keep_books(tmp_path, REGION, PLAN)
    gate = Gate(REGION, Policy(), tmp_path)
    update = noise(1.0, 1)
    booked = gate.reserve(PLAN, 1, update_start(PLAN))
    released = gate.release(update, booked, PLAN)
    for name, array in gate_arrays.view(released.content, PLAN.model.arrays).items():
        np.testing.assert_array_equal(array, update[name])
    assert gate.release(update, booked, PLAN) == released  # the same bytes are no second release
    with pytest.raises(BudgetError):
        gate.release(noise(1.0, 2), booked, PLAN)


def test_there_is_a_word_for_everything_that_can_be_found():
    found = {bet.code for bet in watch.bets(("one",))} | set(canary.FINDINGS) | {"update-norm"}
    assert found == set(outcome.FINDINGS)
