"""Where training runs changes nothing but rounding; a device that is not there is said so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.small import TASK, TwoPaths, data_of, vehicles
from plan.sample import REGION, planned

from fedfsd.engine.device import resolve
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.local import model_on, private_step
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.sampler import choose_windows
from fedfsd.engine.vehicle import VehicleData
from fedfsd.errors import NotReadyError

PLAN = planned(roster=32, max_grad_norm=10.0, epsilon=1.0)
KEY = RoundKey(bytes(32), REGION, "plan", 1, "arrays")


def prepared(device: torch.device) -> tuple[VehicleGradient, VehicleData]:
    data = vehicles([3, 0, 9, 1] * 8)
    placed = data_of(
        data.inputs["history"].to(device), data.targets["future"].to(device), data.first, data.counts
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return model_on(TwoPaths(), TASK.loss, device), placed


def step(device: torch.device) -> np.ndarray:
    ours, data = prepared(device)
    mine = PLAN.region(REGION)
    return private_step(ours, data, mine, KEY, step=0, size=ours.size + 100).cpu().numpy()


def clipped(device: torch.device) -> np.ndarray:
    ours, data = prepared(device)
    window, taken = choose_windows(KEY.stream("windows", 0), np.arange(32), data.counts, 4)
    return ours.clipped_sum(data, np.arange(32), window, taken, max_grad_norm=1.0).cpu().numpy()


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="this machine has no accelerator")
def test_an_accelerator_makes_the_cpus_sum_and_repeats_itself():
    """Its noise is of another cipher, whose keystream is compared elsewhere."""
    device = resolve("auto")
    np.testing.assert_allclose(clipped(device), clipped(torch.device("cpu")), atol=1e-4)
    np.testing.assert_array_equal(step(device), step(device))


def test_the_cpu_can_always_be_chosen_and_repeats_itself():
    assert resolve("cpu") == torch.device("cpu")
    np.testing.assert_array_equal(step(resolve("cpu")), step(resolve("cpu")))


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cpu:x", "tpu"])
def test_a_device_that_is_not_there_is_one_error(name):
    with pytest.raises(NotReadyError) as caught:
        resolve(name)
    assert caught.value.place == "training.device"
