"""The private step against a slow one written from the definition, and against opacus's optimizer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from engine import slow_stream
from engine.small import SPEC, TASK, TwoPaths, slow_clipped_sum, spoil, vehicles
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from plan.sample import REGION, planned

from fedfsd.engine import gradient
from fedfsd.engine.local import model_on, private_step, train
from fedfsd.engine.noise import of_step
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.sampler import choose_windows, sample_vehicles
from fedfsd.plan.plan import WITNESS
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.model import registry

COUNTS = [3, 0, 1, 9, 2, 0, 5, 1, 1, 4, 30, 2]
KEY = RoundKey(bytes(range(32)), REGION, "plan", 2, "arrays")


def mlp() -> torch.nn.Module:
    """The shipped mlp with random weights: as initialised its head is zero."""
    model = registry.build("mlp", {}, SPEC, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def two_paths() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return TwoPaths()


@pytest.fixture(params=[mlp, two_paths])
def model(request) -> torch.nn.Module:
    return request.param()


@pytest.fixture
def data():
    """Ordinary vehicles, one whose windows are all NaN, one far out and one of infinity."""
    found = vehicles(COUNTS)
    for vehicle, value in ((3, float("nan")), (6, 1e4), (9, float("inf"))):
        found = spoil(found, vehicle, value)
    return found


def shapes_of(model, witness=64):
    return {name: tuple(value.shape) for name, value in model.named_parameters()} | {WITNESS: (witness,)}


@pytest.mark.parametrize("clip", [0.3, 10.0])  # all are clipped; some are not
def test_several_steps_equal_the_slow_reference(model, data, monkeypatch, clip):
    shapes = shapes_of(model)
    plan = planned(
        shapes,
        roster=len(COUNTS),
        local_steps=4,
        sample_rate=0.75,
        max_grad_norm=clip,
        optimizer__momentum=0.9,
        epsilon=1.0,
    )
    mine, arrays = plan.region(REGION), {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, value in model.named_parameters():
        arrays[name] = value.detach().numpy().copy()

    slow = copy.deepcopy(model)
    start = np.concatenate([array.ravel() for array in arrays.values()]).astype(np.float64)
    update, velocity = np.zeros_like(start), np.zeros_like(start)
    size = sum(value.numel() for value in model.parameters())
    for step in range(mine.local_steps):
        weights = torch.from_numpy((start + update)[:size].astype(np.float32))
        torch.nn.utils.vector_to_parameters(weights.to(next(slow.parameters()).dtype), slow.parameters())
        slots = sample_vehicles(KEY.stream("vehicles", step), len(COUNTS), 0.75)
        window, taken = choose_windows(KEY.stream("windows", step), slots, data.counts[slots], 4)
        total, unit = np.zeros_like(start), slow_stream.grid(2.0 * clip, clip, len(start))
        less = slow_stream.clipping_norm(2.0 * clip, clip, roster=len(COUNTS), size=len(start))
        total[:size] = slow_clipped_sum(slow, data, slots, window, taken, max_grad_norm=less)
        noise = 2.0 * clip * of_step(KEY, step, torch.device("cpu")).normal(len(start)).numpy()
        total = np.array(
            [
                slow_stream.on_grid(s, unit) + slow_stream.on_grid(n, unit)
                for s, n in zip(total, noise, strict=True)
            ]
        )
        velocity = 0.9 * velocity + total / (0.75 * 12)
        update -= 0.1 * velocity

    monkeypatch.setattr(gradient, "_VEHICLES", 3)
    ours = train(model_on(copy.deepcopy(model), TASK.loss, torch.device("cpu")), data, arrays, plan, KEY)
    assert list(ours) == list(shapes)
    flat = np.concatenate([part.ravel() for part in ours.values()])
    assert flat.dtype == np.float32
    assert np.linalg.norm(flat - update) <= 1e-5 * np.linalg.norm(update)
    np.testing.assert_allclose(ours[WITNESS], update[size:].astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("clip", [0.3, 10.0, 1e6])
def test_micro_batches_change_nothing_but_rounding(model, data, monkeypatch, clip):
    ours, untouched = model_on(copy.deepcopy(model), TASK.loss, torch.device("cpu")), model
    slots = np.arange(len(COUNTS))
    window, taken = choose_windows(KEY.stream("windows", 0), slots, data.counts, 8)
    sums = []
    for limit in (1, 2, 5, 256):
        monkeypatch.setattr(gradient, "_VEHICLES", limit)
        sums.append(ours.clipped_sum(data, slots, window, taken, max_grad_norm=clip).numpy())
    slow = slow_clipped_sum(untouched, data, slots, window, taken, max_grad_norm=clip)
    for found in sums:
        assert np.linalg.norm(found - slow) <= 1e-5 * np.linalg.norm(slow)


def test_no_shape_depends_on_the_data_or_the_draw(model, data):
    """Kernels round by the shape of a batch: one shape for every draw, micro-batch and number of windows."""
    ours, sizes = model_on(model, TASK.loss, torch.device("cpu")), set()
    model.register_forward_pre_hook(lambda _, inputs: sizes.add(tuple(inputs[0].shape)))
    for slots in ([0], [1, 5], [3, 10], range(12)):
        slots = np.array(slots)
        window, taken = choose_windows(KEY.stream("windows", 0), slots, data.counts[slots], 4)
        ours.clipped_sum(data, slots, window, taken, max_grad_norm=0.3)
    assert len(sizes) == 1


def test_one_draw_equals_opacus(model):
    """k = 1, hardly any noise, one draw: the same clipped mean as opacus's DPOptimizer."""
    counts = [1] * 20
    data = vehicles(counts)
    plan = planned(
        shapes_of(model), roster=20, windows_per_vehicle=1, noise_multiplier=1e-9, epsilon=None, mode="none"
    )
    mine = plan.region(REGION)
    size = sum(value.numel() for value in model.parameters())
    slots = sample_vehicles(KEY.stream("vehicles", 0), 20, 0.5)
    assert 2 < len(slots) < 18

    theirs = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=mine.max_grad_norm,
        expected_batch_size=10,
        loss_reduction="mean",
    )
    before = torch.nn.utils.parameters_to_vector(theirs.parameters()).detach().clone()
    window_loss(*theirs(data.inputs["history"][slots]), data.targets["future"][slots]).sum().backward()
    optimizer.step()
    expected = before - torch.nn.utils.parameters_to_vector(theirs.parameters()).detach()

    found = private_step(model_on(model, TASK.loss, torch.device("cpu")), data, mine, KEY, step=0, size=size)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert np.linalg.norm(found) > 0.05


def test_an_empty_draw_still_releases_noise(model, data):
    plan = planned(shapes_of(model), roster=len(COUNTS), sample_rate=1e-9, epsilon=1.0)
    ours = model_on(model, TASK.loss, torch.device("cpu"))
    found = private_step(ours, data, plan.region(REGION), KEY, step=0, size=ours.size + 64)
    unit = slow_stream.grid(0.6, 0.3, ours.size + 64)
    expected = [
        slow_stream.on_grid(0.6 * value, unit)
        for value in of_step(KEY, 0, torch.device("cpu")).normal(ours.size + 64).tolist()
    ]
    np.testing.assert_array_equal(found, np.array(expected) / (1e-9 * 12))


def test_only_spoilt_vehicles_give_a_zero_sum(model, data):
    ours = model_on(model, TASK.loss, torch.device("cpu"))
    slots = np.array([1, 3, 5, 9])  # none, NaN, none, infinite
    window, taken = choose_windows(KEY.stream("windows", 0), slots, data.counts[slots], 4)
    found = ours.clipped_sum(data, slots, window, taken, max_grad_norm=0.3)
    np.testing.assert_array_equal(found, np.zeros(ours.size))


@pytest.mark.parametrize("layer", [torch.nn.Dropout, torch.nn.AlphaDropout, torch.nn.FeatureAlphaDropout])
def test_dropout_is_off(data, layer):
    """Dropout would draw from torch's generator, whose seed has 32 bits."""
    model = two_paths()
    model.body.append(layer(0.5))
    ours = model_on(model, TASK.loss, torch.device("cpu"))
    slots = np.arange(3)
    window, taken = choose_windows(KEY.stream("windows", 0), slots, data.counts[slots], 4)
    sums = [ours.clipped_sum(data, slots, window, taken, max_grad_norm=0.3) for _ in range(4)]
    for found in sums:
        np.testing.assert_array_equal(found, sums[0])


def test_nothing_un_noised_stays_on_the_model(model, data):
    ours = model_on(model, TASK.loss, torch.device("cpu"))
    plan = planned(shapes_of(model), roster=len(COUNTS), epsilon=1.0)
    private_step(ours, data, plan.region(REGION), KEY, step=0, size=ours.size)
    for parameter in ours.parameters:
        assert parameter.grad is None
        assert getattr(parameter, "grad_sample", None) is None
