"""More vehicles than the roster says: nothing stops, and one more or less still moves a sum by at most C."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from engine.small import SPEC, TASK, TwoPaths, slow_clipped_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.sample import REGION, planned
from setting import examples

from fedfsd.engine import local
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.noise import HostNoise
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData, place, within
from fedfsd.task.task import Examples

ROSTER, CLIP = 3, 0.3
KEY = RoundKey(b"\x05" * 32, REGION, "plan", 1, "arrays")


def two_paths() -> TwoPaths:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TwoPaths()


@pytest.fixture(scope="module")
def ours() -> VehicleGradient:
    return local.model_on(two_paths(), TASK.loss, torch.device("cpu"))


def tracks(windows: dict[str, int]) -> Examples:
    """Vehicles by key with so many windows, which depend on the key alone."""
    points = SPEC.history + SPEC.future
    found = [
        np.random.default_rng(list(key.encode())).normal([4, 0], 1, (count, points, 2)).cumsum(1)
        for key, count in sorted(windows.items())
    ]
    track = np.concatenate([np.zeros((0, points, 2)), *found]).astype(np.float32)
    owner = np.repeat(np.arange(len(windows)), [len(part) for part in found])
    history, future = track[:, : SPEC.history], track[:, SPEC.history :]
    return Examples(tuple(sorted(windows)), owner, {"history": history}, {"future": future})


def placed(windows: dict[str, int], roster: int = ROSTER) -> VehicleData:
    return place(tracks(windows), roster=roster, device=torch.device("cpu"))


def step(ours: VehicleGradient, monkeypatch, data: VehicleData, drawn: list[int]) -> np.ndarray:
    """The un-noised sum of a step in which the vehicles in the slots ``drawn`` are drawn."""
    plan = planned(roster=ROSTER, sample_rate=1.0, noise_multiplier=1.0, max_grad_norm=CLIP, epsilon=1.0)
    mine = plan.region(REGION)
    monkeypatch.setattr(local, "sample_vehicles", lambda *_: np.array(sorted(drawn), np.int64))
    monkeypatch.setattr(HostNoise, "whole", lambda _, count, scale: torch.zeros(count, dtype=torch.float64))
    return (local.private_step(ours, data, mine, KEY, step=0, size=ours.size) * mine.divisor).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["abc", "abcd", "abcdef"])
@pytest.mark.parametrize("gone", ["key", "windows"])
def test_a_vehicle_more_or_less_moves_a_step_by_at_most_the_clip(ours, monkeypatch, keys, gone):
    """Whoever is drawn, and whether the vehicle's key is missing or only its windows are.

    Slots are drawn alone and alike, so who is drawn may be compared vehicle by vehicle.
    """
    windows = {key: 1 + number % 2 for number, key in enumerate(keys)}
    everybody = [drawn for size in range(len(keys) + 1) for drawn in combinations(keys, size)]
    worst = 0.0
    for vehicle in keys:
        rest = {key: count for key, count in windows.items() if key != vehicle}
        without = rest if gone == "key" else rest | {vehicle: 0}
        for drawn in everybody:
            sums = [
                step(
                    ours, monkeypatch, placed(here), [sorted(here).index(key) for key in drawn if key in here]
                )
                for here in (windows, without)
            ]
            worst = max(worst, float(np.linalg.norm(sums[0] - sums[1])))
            if vehicle not in drawn:
                np.testing.assert_allclose(sums[0], sums[1], atol=1e-6 * CLIP)
    assert 0.9 * CLIP < worst <= CLIP * (1 + 1e-6)


def test_the_step_is_that_of_a_slow_one(ours, monkeypatch):
    """All vehicles alone in float64, added up, and of that the nearest point within N C."""
    data = placed(dict.fromkeys("abcdefgh", 1))
    slots, window = np.arange(8), np.zeros((8, 1), np.int64)
    slow = slow_clipped_sum(two_paths(), data, slots, window, window == 0, max_grad_norm=CLIP)
    length = np.sqrt(sum(value**2 for value in slow))
    assert length > ROSTER * CLIP  # so that it has to be shortened
    nearest = [value * ROSTER * CLIP / length for value in slow]
    np.testing.assert_allclose(step(ours, monkeypatch, data, [*slots]), nearest, atol=1e-5 * CLIP)


def test_kernels_see_the_planned_number_of_vehicles_whatever_the_data_have(monkeypatch):
    """A batch's shape decides how kernels round: it may not tell that there is one vehicle more."""
    model, sizes = two_paths(), set()
    ours = local.model_on(model, TASK.loss, torch.device("cpu"))
    model.register_forward_pre_hook(lambda _, inputs: sizes.add(tuple(inputs[0].shape)))
    for keys in ("ab", "abc", "abcd", "abcdefgh"):
        step(ours, monkeypatch, placed(dict.fromkeys(keys, 2)), [*range(len(keys))])
    assert len(sizes) == 1


@settings(max_examples=examples(200))
@given(
    rows=st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=2),
    longest=st.floats(1e-3, 1e6),
)
def test_shortening_brings_no_two_sums_farther_apart(rows, longest):
    one, other = (np.array(row) for row in rows)
    near = [within(torch.from_numpy(row.copy()), longest).numpy() for row in (one, other)]
    assert all(np.linalg.norm(row) <= longest * (1 + 1e-12) for row in near)
    apart = np.linalg.norm(one - other)
    assert np.linalg.norm(near[0] - near[1]) <= apart * (1 + 1e-9) + 1e-9
