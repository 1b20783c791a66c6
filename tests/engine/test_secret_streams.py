"""Vehicles, windows and noise come from the run key and from nothing else.

Whoever could compute one of these streams would know who was sampled, and the stated epsilon would be far too
small. So the whole update is computed again from the run key alone, by code that shares nothing with ours;
with another key for a single stream it is another update.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from books import keep_books
from conftest import drives
from engine import slow_stream
from engine.small import slow_clipped_sum
from plan.sample import REGION, planned
from torch import nn

from fedfsd.drive import table
from fedfsd.engine import local
from fedfsd.engine.randomness import RoundKey, known_key
from fedfsd.engine.vehicle import VehicleData
from fedfsd.gate import arrays as gate_arrays
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.runner.region import RegionConfig, open_region, run_round
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec

STREAMS = ("vehicles", "windows", "noise")
KEY = RoundKey(bytes(range(32)), REGION, "a" * 64, 2, "b" * 64)
OTHERS = {
    "another key": replace(KEY, run_key=bytes(32)),
    "what anybody derives from the plan": replace(KEY, run_key=known_key("a" * 64, None)),
    "another round": replace(KEY, round=3),
    "other arrays": replace(KEY, arrays_sha256="c" * 64),
    "another plan": replace(KEY, plan_hash="c" * 64),
    "another region": replace(KEY, region="EU"),
}

# Vehicle i has COUNTS[i] windows, and every window pulls the one weight somewhere else.
COUNTS = [3, 0, 1, 9, 2, 0, 5, 1, 1, 4, 30, 2, 7, 6, 8, 1, 12, 1, 3, 5]
PULLS = [0.37 * number - 11 for number in range(sum(COUNTS))]
SHAPES = {"weight": (1, 1), WITNESS: (63,)}
STEPS, RATE, K, CLIP, SIGMA, MOMENTUM, LEARNING = 3, 0.5, 3, 20.0, 0.01, 0.9, 0.1


def plan() -> Plan:
    return planned(
        SHAPES,
        roster=len(COUNTS),
        local_steps=STEPS,
        sample_rate=RATE,
        windows_per_vehicle=K,
        max_grad_norm=CLIP,
        noise_multiplier=SIGMA,
        optimizer__momentum=MOMENTUM,
        optimizer__learning_rate=LEARNING,
        epsilon=1.0,
    )


def trained(key: RoundKey) -> np.ndarray:
    """The update of one weight w under the loss (w - pull)^2, with its witness block."""
    first = np.cumsum(COUNTS) - COUNTS
    pulls = torch.tensor([*PULLS, 0.0]).float()[:, None]
    data = VehicleData(
        {"one": torch.ones_like(pulls)},
        {"pull": pulls},
        np.where(np.array(COUNTS) > 0, first, len(PULLS)),
        np.array(COUNTS),
        torch.device("cpu"),
    )

    def loss(output: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
        return (output - targets["pull"]).square().sum(dim=1)

    gradient = local.model_on(nn.Linear(1, 1, bias=False), loss, torch.device("cpu"))
    start = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    update = local.train(gradient, data, start, plan(), key)
    return np.concatenate([part.ravel() for part in update.values()])


def recomputed(keys: dict[str, RoundKey]) -> list[float]:
    """The same by hand, each stream under a key of its own."""
    size = sum(int(np.prod(shape)) for shape in SHAPES.values())
    less = slow_stream.clipping_norm(SIGMA * CLIP, CLIP, roster=len(COUNTS), size=size)
    update, velocity = [0.0] * size, [0.0] * size
    for step in range(STEPS):
        draws = {label: stream_of(key, label, step) for label, key in keys.items()}
        weight, total = update[0], 0.0
        for slot in slow_stream.vehicles(draws["vehicles"], len(COUNTS), RATE):
            chosen = slow_stream.windows(draws["windows"], slot, COUNTS[slot], K)
            pulls = [PULLS[sum(COUNTS[:slot]) + number] for number in chosen]
            if pulls:
                mean = sum(2 * (weight - pull) for pull in pulls) / len(pulls)
                total += max(-less, min(less, mean))
        noisy = slow_stream.noised([total] + [0.0] * (size - 1), SIGMA * CLIP, CLIP, draws["noise"])
        velocity = [
            MOMENTUM * old + new / (RATE * len(COUNTS)) for old, new in zip(velocity, noisy, strict=True)
        ]
        update = [old - LEARNING * by for old, by in zip(update, velocity, strict=True)]
    return update


def stream_of(key: RoundKey, label: str, step: int) -> slow_stream.Draw:
    return slow_stream.stream(
        key.run_key,
        label,
        step,
        region=key.region,
        plan=key.plan_hash,
        round=key.round,
        arrays=key.arrays_sha256,
    )


def same(found: np.ndarray, expected: list[float]) -> bool:
    return bool(np.allclose(found, expected, rtol=1e-5, atol=1e-7))


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "another region"])
def test_an_update_is_what_the_run_key_makes_of_it(name):
    for key in (KEY, OTHERS[name]):
        assert same(trained(key), recomputed(dict.fromkeys(STREAMS, key)))
    assert not np.isin(trained(KEY)[1:], trained(OTHERS[name])[1:]).any()


@pytest.mark.parametrize("other", OTHERS.values(), ids=list(OTHERS))
@pytest.mark.parametrize("label", STREAMS)
def test_with_another_key_for_one_stream_it_is_another_update(label, other):
    """So the test above notices when any one of them is drawn from something else."""
    keys = dict.fromkeys(STREAMS, KEY)
    assert not same(trained(KEY), recomputed({**keys, label: other}))


def initial() -> dict[str, np.ndarray]:
    model = registry.build("mlp", {}, WindowSpec(), seed=1)
    arrays = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    return arrays | {WITNESS: np.zeros(4096, np.float32)}


def test_what_a_region_releases_is_what_its_own_key_makes_of_it(tmp_path):
    """The whole way of a round: the key in the region's folder, its table, the bytes that leave."""
    table.write(drives({REGION: 30, "EU": 5}, origin="recorded"), tmp_path / "drives.parquet")
    policy = tmp_path / "policy.toml"
    policy.write_text('roster = 30\nidentity = "physical"\n')
    arrays = initial()
    agreed = planned({name: array.shape for name, array in arrays.items()})
    folder = tmp_path / "CN"
    keep_books(folder, REGION, agreed)
    region = open_region(
        RegionConfig(REGION, str(tmp_path / "drives.parquet"), str(folder), "cpu", str(policy))
    )
    released = gate_arrays.view(run_round(region, arrays, agreed, 1).content, agreed.model.arrays)
    found = np.concatenate([part.ravel() for part in released.values()])

    secret = (folder / "keys" / f"{agreed.hash}.key").read_bytes()
    content = b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    key = RoundKey(secret, REGION, agreed.hash, 1, hashlib.sha256(content).hexdigest())
    _, data = region.prepared(agreed)
    assert np.linalg.norm(found - slow_update(arrays, agreed, key, data)) <= 1e-4 * np.linalg.norm(found)
    known = replace(key, run_key=known_key(agreed.hash, None))
    far = slow_update(arrays, agreed, dict.fromkeys(STREAMS, known) | {"noise": key}, data)
    assert np.linalg.norm(found - far) > 1e-2 * np.linalg.norm(found)


def slow_update(
    arrays: dict[str, np.ndarray], agreed: Plan, keys: RoundKey | dict[str, RoundKey], data: VehicleData
) -> np.ndarray:
    """A round of the shipped mlp by the slow step."""
    keys = dict.fromkeys(STREAMS, keys) if isinstance(keys, RoundKey) else keys
    mine, model = agreed.region(REGION), registry.build("mlp", {}, WindowSpec(), seed=1)
    start = np.concatenate([array.ravel() for array in arrays.values()]).astype(np.float64)
    size, std = sum(part.numel() for part in model.parameters()), 2.0 * 0.3
    less = slow_stream.clipping_norm(std, 0.3, roster=30, size=len(start))
    update, velocity = np.zeros_like(start), np.zeros_like(start)
    for step in range(mine.local_steps):
        weights = torch.from_numpy((start + update)[:size].astype(np.float32))
        nn.utils.vector_to_parameters(weights.to(next(model.parameters()).dtype), model.parameters())
        slots = slow_stream.vehicles(stream_of(keys["vehicles"], "vehicles", step), 30, 0.5)
        draw = stream_of(keys["windows"], "windows", step)
        chosen = [slow_stream.windows(draw, slot, int(data.counts[slot]), 4) for slot in slots]
        window = np.array([[*one, *[0] * (4 - len(one))] for one in chosen])
        taken = np.array([[number < len(one) for number in range(4)] for one in chosen])
        total = np.zeros_like(start)
        total[:size] = slow_clipped_sum(model, data, slots, window, taken, max_grad_norm=less)
        noisy = slow_stream.noised(list(total), std, 0.3, stream_of(keys["noise"], "noise", step))
        velocity = 0.5 * velocity + np.array(noisy) / (0.5 * 30)
        update -= 0.1 * velocity
    return update
