"""One vehicle more or less moves the clipped sum by at most C, whatever it and the others contain."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from engine import slow_stream
from engine.small import SPEC, TASK, TwoPaths, data_of, vehicles
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.sample import REGION, planned
from setting import examples

from fedfsd.engine.clip import clip_and_sum
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.local import model_on, private_step
from fedfsd.engine.randomness import RoundKey, Stream
from fedfsd.engine.sampler import choose_windows
from fedfsd.engine.vehicle import VehicleData
from fedfsd.gate.gate import max_update_norm
from fedfsd.plan.plan import RegionPlan

NAN, INF = float("nan"), float("inf")
BOUND = 1 + 1e-6
Kind = float | str

# What a vehicle's windows hold: a factor on an ordinary drive, or one value everywhere.
KINDS = st.sampled_from([1.0, 1.0, 1e-6, 1e3, 1e20, 1e38, 0.0, NAN, INF, -INF, "half NaN", "same"])
OTHERS = st.lists(st.tuples(st.integers(0, 4), KINDS), max_size=12)
TARGETS = st.tuples(st.sampled_from([1, 2, 8, 10_000]), KINDS)
CLIPS = st.sampled_from([1e-6, 1e-3, 0.3, 1.0, 10.0])


@pytest.fixture(scope="module")
def ours() -> VehicleGradient:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_on(TwoPaths(), TASK.loss, torch.device("cpu"))


def region(kinds: list[tuple[int, Kind]]) -> VehicleData:
    """Vehicles of so many windows and such content."""
    data = vehicles([count for count, _ in kinds])
    history, future = data.inputs["history"].clone(), data.targets["future"].clone()
    for first, (count, kind) in zip(data.first, kinds, strict=True):
        for part in (history[first : first + count], future[first : first + count]):
            if kind == "half NaN":
                part[::2] = NAN
            elif kind == "same":
                part[:] = part[:1].clone()
            else:
                part *= kind
    return data_of(history, future, data.first, data.counts)


def summed(ours: VehicleGradient, data: VehicleData, *, clip: float, k: int) -> np.ndarray:
    """The clipped sum over all vehicles, with the windows that a fixed key chooses."""
    slots = np.arange(data.roster)
    window, taken = choose_windows(Stream(bytes(32)), slots, data.counts, k)
    return ours.clipped_sum(data, slots, window, taken, max_grad_norm=clip).numpy()


def zeroed(data: VehicleData, vehicle: int) -> VehicleData:
    """The same without a usable window of one vehicle, which stays on the roster."""
    counts = np.where(np.arange(data.roster) == vehicle, 0, data.counts)
    first = np.where(counts > 0, data.first, len(data.inputs["history"]) - 1)
    return data_of(data.inputs["history"], data.targets["future"], first, counts)


@settings(deadline=None, max_examples=examples(120))
@given(others=OTHERS, target=TARGETS, place=st.integers(0, 12), clip=CLIPS, k=st.sampled_from([1, 3, 8]))
def test_one_vehicle_moves_the_sum_by_at_most_the_clip(ours, others, target, place, clip, k):
    place = min(place, len(others))
    data = region([*others[:place], target, *others[place:]])
    with_it = summed(ours, data, clip=clip, k=k)
    without = summed(ours, zeroed(data, place), clip=clip, k=k)
    assert np.isfinite(with_it).all()
    assert np.isfinite(without).all()
    assert np.linalg.norm(with_it - without) <= clip * BOUND


def test_ten_thousand_windows_at_once_move_the_sum_by_at_most_the_clip(ours):
    data = region([(2, 1.0), (10_000, 1e3), (1, NAN)])
    everything = np.tile(np.arange(10_000), (3, 1))
    taken = everything < data.counts[:, None]
    sums = [
        ours.clipped_sum(data, np.arange(3), np.where(chosen, everything, 0), chosen, max_grad_norm=0.3)
        for chosen in (taken, taken & (np.arange(3) != 1)[:, None])
    ]
    assert 0.29 < np.linalg.norm(sums[0] - sums[1]) <= 0.3 * BOUND


@settings(deadline=None, max_examples=examples(60))
@given(others=OTHERS, target=TARGETS, clip=CLIPS)
def test_a_vehicle_that_never_was_is_one_without_windows(ours, others, target, clip):
    """Taking the vehicle off the draw is the same as zeroing it out."""
    data = region([*others, target])
    without = summed(ours, zeroed(data, len(others)), clip=clip, k=4)
    never = summed(ours, region(others), clip=clip, k=4) if others else np.zeros(ours.size)
    np.testing.assert_allclose(without, never, atol=1e-5 * clip)


@settings(deadline=None, max_examples=examples(200))
@given(
    rows=st.lists(
        st.lists(st.floats(width=32, allow_subnormal=True), min_size=5, max_size=5), min_size=1, max_size=8
    ),
    clip=CLIPS,
)
def test_any_row_is_clipped_or_zero(rows, clip):
    means = torch.tensor(rows, dtype=torch.float32)
    total = clip_and_sum(means, clip)
    assert np.isfinite(total).all()
    for row in range(len(rows)):
        rest = clip_and_sum(torch.cat([means[:row], means[row + 1 :]]), clip)
        assert np.linalg.norm(total - rest) <= clip * BOUND
        alone = clip_and_sum(means[row : row + 1], clip)
        assert np.isfinite(means[row].numpy()).all() or not alone.any()


def test_the_bound_is_reached():
    """Large gradients count with norm C, small ones in full: clipping does not throw signal away."""
    means = torch.tensor([[3e4, 4e4], [0.03, 0.04]])
    np.testing.assert_allclose(clip_and_sum(means[:1], 0.5), [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(clip_and_sum(means[1:], 0.5), [0.03, 0.04], rtol=1e-4)


def test_many_windows_weigh_as_much_as_one(ours):
    """The unit is the vehicle: the mean over its windows is clipped, not each window."""
    data = region([(1, 1.0), (8, 1.0)])
    data.inputs["history"][1:9], data.targets["future"][1:9] = (
        data.inputs["history"][0].clone(),
        data.targets["future"][0].clone(),
    )
    one, many = (summed(ours, zeroed(data, other), clip=0.3, k=8) for other in (1, 0))
    np.testing.assert_allclose(one, many, atol=1e-6)
    assert np.linalg.norm(one) > 0.29


class Cancelling(torch.nn.Module):
    """Sixteen saturated units: with weights that cancel, the last bit of a sum decides the path."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(2 * SPEC.history, 16)
        self.head = torch.nn.Linear(16, 2 * SPEC.future)

    def forward(self, history: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.head(torch.tanh(self.body(history.flatten(1))))
        return out.unflatten(1, (1, SPEC.future, 2)), torch.zeros_like(out[:, :1])


def test_hostile_weights_do_not_couple_vehicles_through_rounding():
    """The coordinator chooses the inbound weights: they must not make one vehicle's windows change others.

    A batch of three rows rounds unlike one of four; these weights make that a difference of metres.
    """
    data, ours = vehicles([1] * 4), model_on(Cancelling(), TASK.loss, torch.device("cpu"))
    random = np.random.default_rng(0)
    body_weight, body_bias, head_weight, head_bias = ours.parameters
    worst = 0.0
    for _ in range(20):
        weight = random.uniform(-1, 1, (2 * SPEC.future, 16)) * 3e5
        with torch.no_grad():
            body_weight.zero_(), body_bias.fill_(100.0)  # every unit is 1, whatever the vehicle did
            head_weight.copy_(torch.from_numpy(weight))
            head_bias.copy_(-head_weight.double().sum(1))
        moved = summed(ours, data, clip=0.3, k=1) - summed(ours, zeroed(data, 3), clip=0.3, k=1)
        worst = max(worst, np.linalg.norm(moved) / 0.3)
    assert worst <= BOUND, f"removing one vehicle moved the sum by {worst:.2f} C"


# What is released lies on a public grid, and rounding to it is part of the sensitivity (Mironov 2012).

SIGMAS = st.sampled_from([0.5, 1.7, 60.0])
WITNESSES = 50


def region_plan(roster: int, *, clip: float, sigma: float) -> RegionPlan:
    """Of a region that samples every vehicle."""
    constants = {"roster": roster, "sample_rate": 1.0, "noise_multiplier": sigma, "max_grad_norm": clip}
    return planned(**constants, epsilon=1.0).region(REGION)


def on_the_grid(ours: VehicleGradient, data: VehicleData, *, clip: float, sigma: float) -> np.ndarray:
    """One step with a fixed key as whole multiples of the grid; everything else fails."""
    mine = region_plan(data.roster, clip=clip, sigma=sigma)
    size = ours.size + WITNESSES
    key = RoundKey(bytes(32), REGION, "plan", 1, "arrays")
    released = private_step(ours, data, mine, key, step=0, size=size).numpy()
    unit = slow_stream.grid(sigma * clip, clip, size)
    whole = np.rint(released * mine.divisor / unit)
    np.testing.assert_array_equal(whole * unit / mine.divisor, released)
    return whole


@settings(deadline=None, max_examples=examples(60))
@given(others=OTHERS, target=TARGETS, clip=CLIPS, sigma=SIGMAS)
def test_a_step_lies_on_a_grid_that_the_data_do_not_choose(ours, others, target, clip, sigma):
    """Whatever the gradients are, zero ones included: no bit below the grid tells that one was zero."""
    with_it = on_the_grid(ours, region([*others, target]), clip=clip, sigma=sigma)
    nobody = on_the_grid(ours, region([(0, 1.0)] * (len(others) + 1)), clip=clip, sigma=sigma)
    np.testing.assert_array_equal(with_it[ours.size :], nobody[ours.size :])
    assert nobody.any()


@settings(deadline=None, max_examples=examples(60))
@given(others=OTHERS, target=TARGETS, clip=CLIPS, sigma=SIGMAS)
def test_rounded_sums_of_neighbours_differ_by_at_most_the_clip(ours, others, target, clip, sigma):
    """In exact arithmetic and without any tolerance: C is what the accountants are told."""
    data = region([*others, target])
    with_it, without = (
        on_the_grid(ours, one, clip=clip, sigma=sigma) for one in (data, zeroed(data, len(others)))
    )
    unit = Fraction(slow_stream.grid(sigma * clip, clip, len(with_it)))
    moved = sum(int(number) ** 2 for number in with_it - without)
    assert moved * unit**2 <= Fraction(clip) ** 2


class Silence:
    """No noise."""

    def whole(self, count: int, _: float, /) -> np.ndarray:
        return np.zeros(count)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_largest_norm_of_a_correct_update_still_is_one(momentum):
    """Every vehicle sampled in every step, all of one gradient, and rounding upwards everywhere."""
    changes = {"roster": 1000, "sample_rate": 1.0, "local_steps": 20, "optimizer__momentum": momentum}
    plan = planned(**changes, epsilon=1.0)
    noise, size = plan.mechanism(REGION), plan.model.size
    norm = noise.clipping_norm(1, roster=1000, size=size)
    total = np.full(size, 1000 * norm / np.sqrt(size)) + noise.grid(1, size=size) / 2
    step = noise.noised(total, Silence(), round=1) / plan.region(REGION).divisor
    update, velocity = np.zeros(size), np.zeros(size)
    for _ in range(20):
        velocity = momentum * velocity + step
        update -= plan.learning_rate(1) * velocity
    longest = np.linalg.norm(update.astype(np.float32))
    signal_alone = max_update_norm(plan, REGION, 1) - max_update_norm(
        planned(**changes, max_grad_norm=1e-6, epsilon=1.0), REGION, 1
    )
    assert longest < max_update_norm(plan, REGION, 1)
    assert longest > 0.5 * signal_alone
