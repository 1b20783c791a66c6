"""Packed windows: everybody has one place, nobody's bits depend on it, and the sum is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plan.sample import REGION, planned
from torch import Tensor, nn

from fedfsd.engine import probe as probes
from fedfsd.engine.local import model_on, private_step
from fedfsd.engine.probe import probe_places
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.sampler import Lane, lanes, pack
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.errors import ModelError
from fedfsd.gate.policy import Policy, objections, simulated
from fedfsd.plan.plan import RegionPlan
from fedfsd.task import registry
from fedfsd.task.task import Examples

TASK = registry.of("forecasting", {})
CPU = torch.device("cpu")
ROSTER, K = 60, 8
MODELS = {
    "mlp": ("mlp", {}),
    "gru": ("gru", {}),
    "transformer": ("transformer", {}),
    "large transformer": ("transformer", {"width": 76, "layers": 3, "heads": 4}),
}


def examples(counts: np.ndarray, seed: int = 0) -> Examples:
    # Each vehicle's windows by a generator of its own, so that one more changes no other's.
    tracks = [np.random.default_rng([seed, one]).normal(3.0, 1.0, (n, 11, 2)) for one, n in enumerate(counts)]
    track = np.concatenate(tracks).cumsum(axis=1).astype(np.float32)
    return Examples(
        tuple(f"v{number:03}" for number in range(len(counts))),
        np.repeat(np.arange(len(counts)), counts),
        {"history": track[:, :5] - track[:, 4:5]},
        {"future": track[:, 5:] - track[:, 4:5]},
    )


def model(kind: str) -> nn.Module:
    made = TASK.model(*MODELS[kind], seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def region_plan(**changes) -> RegionPlan:
    return RegionPlan(
        **{
            "roster": ROSTER,
            "identity": "physical",
            "sample_rate": 0.5,
            "noise_multiplier": 1e-9,
            "max_grad_norm": 0.5,
            "local_steps": 1,
            "windows_per_vehicle": K,
            "weight": 1.0,
            "target_delta": 1e-3,
            "target_epsilon": None,
            "epsilon": None,
            **changes,
        }
    )


def counts_of(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random(ROSTER) < 0.4, 0, random.integers(1, 20, ROSTER))


@given(
    st.integers(1, 100_000),
    st.floats(1e-3, 1.0),
    st.integers(1, 40),
    st.integers(1, 12_000_000),
    st.lists(st.integers(0, 60), max_size=80),
)
def test_everybody_with_a_window_has_one_lane_and_fills_most_of_it(roster, rate, k, size, counts):
    shapes = lanes(roster, rate, k, size)
    assert shapes == lanes(roster, rate, k, size)
    assert all((one.places * one.vehicles) % 16 == 0 or 8 * one.vehicles * size > 2**24 for one in shapes)
    assert all(8 * one.vehicles * size <= 2**28 or one.vehicles == 1 for one in shapes)
    taken = np.arange(k) < np.array(counts, int)[:, None]
    placed: list[int] = []
    for lane, chosen in pack(shapes, taken):
        own = taken[chosen].sum(axis=1)
        assert (own <= lane.places).all()
        assert len(shapes) == 1 or (2 * own > lane.places).all()
        placed += chosen.tolist()
    assert sorted(placed) == np.flatnonzero(taken.any(axis=1)).tolist()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lane", [Lane(1, 16), Lane(2, 16), Lane(4, 12), Lane(8, 2)], ids=str)
def test_a_vehicles_bits_depend_neither_on_its_place_nor_on_its_neighbours(kind, lane):
    ours = model_on(model(kind), TASK.loss, CPU)
    found = examples(np.full(2 * lane.vehicles, lane.places))
    history, future = (
        torch.from_numpy(part).unflatten(0, (-1, lane.places))
        for part in (found.inputs["history"], found.targets["future"])
    )
    taken = torch.ones(lane.vehicles, lane.places, dtype=torch.bool)

    def gradients(order: Tensor) -> Tensor:
        return ours.mean_by_vehicle({"history": history[order]}, {"future": future[order]}, taken)

    usual = gradients(torch.arange(lane.vehicles))
    for first in range(lane.vehicles):
        order = torch.arange(lane.vehicles).roll(first)
        assert torch.equal(gradients(order), usual[order])
    # The first vehicle among others: half of the places with those that were not there before.
    others = torch.arange(lane.vehicles) + lane.vehicles * (torch.arange(lane.vehicles) % 2)
    assert torch.equal(gradients(others)[0], usual[0])


def step_of(kind: str, data: VehicleData, mine: RegionPlan) -> np.ndarray:
    ours = model_on(model(kind), TASK.loss, CPU)
    key = RoundKey(bytes(32), "CN", 64 * "0", 1, 64 * "0")
    return private_step(ours, data, mine, key, step=0, size=ours.size).numpy()


@pytest.mark.parametrize("kind", ["mlp", "large transformer"])
def test_a_packed_step_is_the_same_step(kind):
    data = place(examples(counts_of()), roster=ROSTER, device=CPU)
    plain, packed = (step_of(kind, data, region_plan(packed=one)) for one in (False, True))
    # Where no gradient is formed, a 256th of C is kept back.
    assert np.linalg.norm(packed - plain) <= 0.02 * np.linalg.norm(plain)
    assert np.linalg.norm(plain) > 1e-3


@pytest.mark.parametrize("kind", ["mlp", "large transformer"])
def test_one_vehicle_moves_a_packed_sum_by_its_own_gradient_alone(kind):
    counts, clip = counts_of(), 0.05
    mine = region_plan(packed=True, sample_rate=1.0, max_grad_norm=clip)
    whole = step_of(kind, place(examples(counts), roster=ROSTER, device=CPU), mine)
    for vehicle in np.flatnonzero(counts)[[0, 7, -1]]:
        # All behind it in its lane move up a place, into another micro-batch some of them.
        fewer = np.where(np.arange(ROSTER) == vehicle, 0, counts)
        without = step_of(kind, place(examples(fewer), roster=ROSTER, device=CPU), mine)
        alone = np.where(np.arange(ROSTER) == vehicle, counts, 0)
        single = step_of(kind, place(examples(alone), roster=ROSTER, device=CPU), mine)
        moved = (whole - without) * mine.divisor
        assert np.linalg.norm(moved) <= clip
        assert np.linalg.norm(moved - single * mine.divisor) <= 1e-6 * clip


def test_how_much_is_computed_depends_on_windows_only_where_they_are_packed(monkeypatch):
    calls: list[tuple[int, ...]] = []
    ours = model_on(model("large transformer"), TASK.loss, CPU)
    whole = ours._batch

    def counted(inputs, targets, taken, *rest, **named):
        calls.append(tuple(taken.shape))
        return whole(inputs, targets, taken, *rest, **named)

    monkeypatch.setattr(ours, "_batch", counted)
    key = RoundKey(bytes(32), "CN", 64 * "0", 1, 64 * "0")
    seen = []
    for packed in (False, True):
        for counts in (counts_of(), np.zeros(ROSTER, int)):
            calls.clear()
            data = place(examples(counts), roster=ROSTER, device=CPU)
            private_step(ours, data, region_plan(packed=packed), key, step=0, size=ours.size)
            seen.append(tuple(calls))
    assert seen[0] == seen[1]
    assert seen[2] != seen[3] == ()
    computed = [sum(vehicles * places for vehicles, places in one) for one in seen]
    assert computed[2] < 0.7 * computed[0]


def test_a_model_whose_bits_depend_on_the_place_is_not_packed(monkeypatch):
    made = model("mlp")
    probe_places(made, TASK, [region_plan(sample_rate=1.0)])
    usual = probes.model_on

    def leaning(*arguments, **named):
        ours = usual(*arguments, **named)
        whole = ours.mean_by_vehicle

        def by_place(inputs, targets, taken):
            found = whole(inputs, targets, taken)
            found[-1] *= 1 + 2**-22
            return found

        ours.mean_by_vehicle = by_place
        return ours

    monkeypatch.setattr(probes, "model_on", leaning)
    with pytest.raises(ModelError, match="its place among"):
        probe_places(made, TASK, [region_plan(sample_rate=1.0)])


def test_a_region_packs_only_where_its_policy_hides_the_time():
    usual = planned()
    mine = usual.region(REGION).model_copy(update={"packed": True})
    plan = usual.model_copy(update={"format": 3, "regions": {REGION: mine}})
    shown, hidden = Policy(), Policy(round_seconds=5.0)
    assert any("packs windows" in one for one in objections(shown, plan, REGION))
    assert not any("packs windows" in one for one in objections(hidden, plan, REGION))
    assert not any("packs windows" in one for one in objections(simulated(shown), plan, REGION))
