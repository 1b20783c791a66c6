"""Moments as a region releases them, against a slow reference: vehicle by vehicle, in numpy."""

from __future__ import annotations

import copy
from math import sqrt

import numpy as np
import pytest
import torch
from engine.small import SPEC, TASK, spoil, vehicles
from hypothesis import given
from hypothesis import strategies as st
from plan.sample import REGION, document

from fedfsd import canonical
from fedfsd.engine.local import model_on, train
from fedfsd.engine.probe import probe
from fedfsd.engine.randomness import RoundKey
from fedfsd.errors import PlanError
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import STATISTICS, WITNESS
from fedfsd.runner import replay
from fedfsd.task.forecasting.model import registry
from fedfsd.task.moments import Moments

COUNTS = [3, 0, 1, 9, 2, 5]
CLIP = 0.8
KEPT = 6


def whitened() -> torch.nn.Module:
    """The shipped mlp with moments, whitened by made-up drives, all weights random."""
    model = registry.build("mlp", {"width": 3, "moments": KEPT, "moments_length": 0.7}, SPEC, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != STATISTICS:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        public = vehicles([400], seed=5)
        model.moments.fit([model.equations(public.inputs["history"], public.targets)])
    return model


def slow_moments(model, history: np.ndarray, future: np.ndarray) -> np.ndarray:
    """One window's moments from their definition: products of whitened rows, one entry after another."""
    with torch.no_grad():
        design, response = model.equations(
            torch.from_numpy(history)[None], {"future": torch.from_numpy(future)[None]}
        )
    whitening, unit = model.moments.whitening.double().numpy(), float(model.moments.unit)
    rows, wanted = design[0].double().numpy() @ whitening, response[0].double().numpy()
    found = []
    for i in range(KEPT):
        for j in range(i, KEPT):
            value = sum(row[i] * row[j] for row in rows)
            found.append(0.5 * value * (1 if i == j else sqrt(2)))
    found += [
        sum(row[i] * one[r] for row, one in zip(rows, wanted, strict=True))
        for i in range(KEPT)
        for r in range(wanted.shape[1])
    ]
    return np.array(found) / unit


def slow_sum(model, data, clip: float) -> np.ndarray:
    """Every vehicle's mean, shortened as one vector to ``clip``, added up."""
    total = 0
    for first, count in zip(data.first, data.counts, strict=True):
        each = [
            slow_moments(model, data.inputs["history"][row].numpy(), data.targets["future"][row].numpy())
            for row in range(first, first + count)
        ]
        mean = np.mean(each, axis=0) if each else np.zeros(1)
        if np.isfinite(mean).all():
            total = total + mean * min(1.0, clip / max(np.linalg.norm(mean), 1e-30))
    return total


def clipped_sum(model, data, clip: float = CLIP) -> np.ndarray:
    """The engine's, of all vehicles; the part of the statistics."""
    gradient = model_on(copy.deepcopy(model), TASK.loss, torch.device("cpu"))
    gradient.collecting = True
    slots, k = np.arange(len(data.counts)), int(data.counts.max())
    window = np.tile(np.arange(k), (len(slots), 1))
    taken = window < data.counts[:, None]
    found = gradient.clipped_sum(data, slots, np.where(taken, window, 0), taken, max_grad_norm=clip).numpy()
    ends = np.cumsum([one.numel() for one in gradient.parameters])
    parts = dict(zip([name for name, _ in model.named_parameters()], np.split(found, ends[:-1]), strict=True))
    statistics = parts.pop(STATISTICS)
    assert not any(part.any() for part in parts.values())  # nothing else moves in such a round
    return statistics


@pytest.mark.parametrize("clip", [0.05, CLIP, 1e3])
def test_the_engine_sums_what_the_definition_says(clip):
    model, data = whitened(), spoil(spoil(vehicles(COUNTS), 2, float("nan")), 4, 1e4)
    wanted = slow_sum(model, data, clip)
    np.testing.assert_allclose(clipped_sum(model, data, clip), wanted, rtol=1e-4, atol=1e-5 * clip)


@given(size=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e6, float("inf")]), vehicle=st.sampled_from([0, 2, 3]))
def test_one_vehicle_moves_the_sum_by_at_most_the_clip(size, vehicle):
    model, data = whitened(), vehicles(COUNTS)
    nobody = spoil(data, vehicle, float("nan"))
    moved = clipped_sum(model, spoil(data, vehicle, size)) - clipped_sum(model, nobody)
    assert np.linalg.norm(moved) <= CLIP * (1 + 1e-9)


def test_public_moments_have_the_stated_length_and_white_features():
    model, public = whitened(), vehicles([400], seed=5)
    with torch.no_grad():
        design, response = model.equations(public.inputs["history"], public.targets)
        lengths = model.moments.of(design, response).norm(dim=1)
        white = (design @ model.moments.whitening).flatten(0, 1).double()
    assert float(lengths.median()) == pytest.approx(0.7, rel=1e-4)
    np.testing.assert_allclose((white.T @ white / len(design)).numpy(), np.eye(KEPT), atol=1e-3)


def test_without_noise_the_solution_is_that_of_least_squares():
    random = np.random.default_rng(2)
    design = torch.from_numpy(random.normal(size=(300, 2, 5)).astype(np.float32))
    response = torch.from_numpy(random.normal(size=(300, 2, 3)).astype(np.float32))
    moments = Moments(5, 5, 3, second=0.5, length=2.0)
    moments.fit([(design, response)])
    found = moments.solve(moments.of(design, response).mean(dim=0).numpy(), noise=0.0, ridge=1.0)
    wanted = np.linalg.lstsq(design.flatten(0, 1).numpy(), response.flatten(0, 1).numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-4)


def test_noise_alone_hardly_moves_the_head():
    """A ridge at the scale of the noise: without any signal the answer is near nothing."""
    moments = Moments(30, 30, 2, second=0.5, length=1.0)
    moments.whitening.copy_(torch.eye(30))
    random, sizes = np.random.default_rng(3), {}
    for ridge in (0.1, 3.0):
        noise = random.normal(scale=0.1, size=moments.statistics.in_features)
        sizes[ridge] = float(moments.solve(noise, noise=0.1, ridge=ridge).norm())
    assert sizes[3.0] < 0.6 < sizes[0.1]


def test_a_solution_moves_the_paths_by_what_the_regression_says():
    model, data = whitened(), vehicles([20])
    history, future = data.inputs["history"], data.targets["future"]
    solution = 0.1 * torch.randn((32, 2), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        design, before = model.equations(history, {"future": future})
        weight = ((model(history)[0][:, 0] - future).square().sum(2).mean(1) + 1).pow(-0.25)
        basis = torch.linalg.qr(model.powers)[0]
        wanted = torch.einsum("fp,bcp->bfc", basis, design @ solution / weight[:, None, None])
        was = model(history)[0][:, 0].clone()
        model.shift(solution)
        torch.testing.assert_close(model(history)[0][:, 0] - was, wanted, atol=1e-3, rtol=1e-3)
    assert before.shape == (len(history), 2, 2)


def plan_for(model, **changes):
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters()} | {WITNESS: (512,)}
    of_region = {"sample_rate": 1.0, "local_steps": 1, "roster": 12, "max_grad_norm": CLIP}
    return read(shapes, **{"strategy": "moments", **of_region, **changes})


def read(shapes, **changes):
    found = document(shapes, **changes)
    found |= {"format": 4, "task": {"name": "forecasting", "options": found.pop("window")}}
    return plans.read(canonical.encode(found).decode())


def test_a_round_releases_the_noised_mean_and_later_rounds_gradients():
    model, data = whitened(), vehicles(COUNTS)
    plan = plan_for(model, num_rounds=2, windows_per_vehicle=9, roster=len(COUNTS))
    arrays = {
        **{name: one.detach().numpy().copy() for name, one in model.named_parameters()},
        WITNESS: np.zeros(512, np.float32),
    }
    gradient = model_on(copy.deepcopy(model), TASK.loss, torch.device("cpu"))
    rounds = [train(gradient, data, arrays, plan, RoundKey(bytes(32), REGION, "p", n, "a")) for n in (1, 2)]
    std = plan.region(REGION).noise_multiplier * CLIP / len(COUNTS) * plan.learning_rate(1)
    mean = slow_sum(model, data, CLIP) / len(COUNTS) * plan.learning_rate(1)
    left = -rounds[0][STATISTICS].ravel() - mean
    assert np.std(rounds[0]["head.weight"]) == pytest.approx(std, rel=0.4)  # noise alone
    assert np.std(left) == pytest.approx(std, rel=0.4)
    assert np.std(rounds[1][STATISTICS]) == pytest.approx(std, rel=0.4)


def test_the_model_passes_the_probe_and_both_rounds_the_replay():
    model = whitened()
    probe(model, TASK)
    plan = plan_for(model, num_rounds=2)
    arrays = {name: one.detach().numpy().copy() for name, one in model.named_parameters()}
    arrays[WITNESS] = np.zeros(512, np.float32)
    gradient = model_on(model, TASK.loss, torch.device("cpu"))
    found = replay.replay(gradient, model, TASK, plan, REGION, arrays)
    assert found.faults == ()
    assert found.runs > 20


def test_a_plan_has_the_strategy_and_the_array_or_neither():
    model = whitened()
    assert plan_for(model).format == 4
    with pytest.raises(PlanError, match="moments"):
        read({"head.weight": (2, 2), WITNESS: (512,)}, strategy="moments")
    with pytest.raises(PlanError, match="moments"):
        plan_for(model, strategy="FedAvg")
