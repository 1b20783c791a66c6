"""Where training runs changes nothing but rounding; a device that is not there is said so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.small import TASK, TwoPaths, data_of, vehicles
from plan.sample import REGION, planned

from fedfsd.engine.device import resolve
from fedfsd.engine.local import model_on, private_step
from fedfsd.engine.randomness import RoundKey
from fedfsd.errors import NotReadyError


def step(device: torch.device) -> np.ndarray:
    data = vehicles([3, 0, 9, 1] * 8)
    placed = data_of(
        data.inputs["history"].to(device), data.targets["future"].to(device), data.first, data.counts
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        ours = model_on(TwoPaths(), TASK.loss, device)
    plan = planned(roster=32, max_grad_norm=10.0, epsilon=1.0)
    key = RoundKey(bytes(32), REGION, "plan", 1, "arrays")
    return private_step(ours, placed, plan.region(REGION), key, step=0, size=ours.size + 100).cpu().numpy()


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="this machine has no accelerator")
def test_a_private_step_on_an_accelerator_equals_the_cpus():
    ours, theirs = step(torch.device("cpu")), step(resolve("auto"))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    np.testing.assert_array_equal(theirs[-100:], ours[-100:])  # the noise is the host's, to the bit


def test_the_cpu_can_always_be_chosen_and_repeats_itself():
    assert resolve("cpu") == torch.device("cpu")
    np.testing.assert_array_equal(step(resolve("cpu")), step(resolve("cpu")))


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cpu:x", "tpu"])
def test_a_device_that_is_not_there_is_one_error(name):
    with pytest.raises(NotReadyError) as caught:
        resolve(name)
    assert caught.value.place == "training.device"
