"""A vehicle whose windows are all unusable: nothing public changes, and nobody else's draws do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import drives
from engine.small import SPEC, TASK
from plan.sample import REGION, planned

from fedfsd.config.experiment import Experiment
from fedfsd.drive import table
from fedfsd.engine import local
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.sampler import choose_windows, sample_vehicles
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.plan.plan import WITNESS
from fedfsd.simulation.prepare import prepare
from fedfsd.task.forecasting.model import registry

VEHICLES = 24
KEY = RoundKey(b"\x05" * 32, REGION, "plan", 1, "arrays")


def columns() -> dict[str, np.ndarray]:
    rows = drives({REGION: VEHICLES}, seed=3).rows.drop_columns(["test"])
    found = {name: rows[name].to_numpy(zero_copy_only=False).copy() for name in rows.column_names}
    found["test"] = np.zeros(len(found["t"]), bool)
    return found


def still(rows, mine):
    rows["x"][mine], rows["y"][mine] = 1.0, 2.0


def keep(rows, mine, count):
    gone = np.flatnonzero(mine)[count:]
    for name in rows:
        rows[name] = np.delete(rows[name], gone)


WAYS = {
    "NaN positions": lambda rows, mine: rows["x"].__setitem__(mine, np.nan),
    "infinite": lambda rows, mine: rows["y"].__setitem__(mine, np.inf),
    "NaN times": lambda rows, mine: rows["t"].__setitem__(mine, np.nan),
    "1e20": lambda rows, mine: rows["x"].__setitem__(mine, 1e20 * np.arange(mine.sum())),
    "still": still,
    "one point": lambda rows, mine: keep(rows, mine, 1),
    "two points": lambda rows, mine: keep(rows, mine, 2),
    "gaps": lambda rows, mine: rows["t"].__setitem__(mine, 100.0 * np.arange(mine.sum())),
}


def region_data(rows: dict[str, np.ndarray]) -> VehicleData:
    found = table.of_rows(rows, licence="CC0-1.0", identity="physical", origin="synthetic")
    return place(TASK.examples([found], test=False), roster=30, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def whole() -> VehicleData:
    return region_data(columns())


@pytest.fixture(params=WAYS)
def spoilt(request) -> tuple[int, VehicleData]:
    """(slot, data) with one vehicle of many windows made unusable."""
    rows = columns()
    slot = 5
    key = np.unique(rows["vehicle"])[slot]
    WAYS[request.param](rows, rows["vehicle"] == key)
    return slot, region_data(rows)


def test_it_keeps_its_slot_and_the_others_theirs(whole, spoilt):
    slot, data = spoilt
    assert whole.counts[slot] > 4
    assert data.counts[slot] == 0
    assert data.roster == whole.roster == 30
    for other in set(range(30)) - {slot}:
        mine, theirs = (
            d.inputs["history"][d.first[other] : d.first[other] + d.counts[other]] for d in (whole, data)
        )
        assert torch.equal(mine, theirs)


def test_no_other_vehicles_draws_change(whole, spoilt):
    slot, data = spoilt
    for step in range(5):
        slots = sample_vehicles(KEY.stream("vehicles", step), data.roster, 0.5)
        assert slots.tolist() == sample_vehicles(KEY.stream("vehicles", step), whole.roster, 0.5).tolist()
        with_it, without = (
            choose_windows(KEY.stream("windows", step), slots, d.counts[slots], 4) for d in (whole, data)
        )
        others = slots != slot
        for before, after in zip(with_it, without, strict=True):
            np.testing.assert_array_equal(before[others], after[others])


def test_the_update_moves_by_at_most_one_clipped_gradient_a_step(whole, spoilt):
    _, data = spoilt
    model = registry.build("mlp", {}, SPEC, seed=0)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()} | {WITNESS: (256,)}
    arrays = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    arrays[WITNESS] = np.zeros(256, np.float32)
    plan = planned(shapes, local_steps=1, sample_rate=1.0, optimizer__learning_rate=1.0, epsilon=1.0)
    ours = local.model_on(model, TASK.loss, torch.device("cpu"))
    before, after = (local.train(ours, d, arrays, plan, KEY) for d in (whole, data))
    # The noise is the same to the bit: the witness block shows nothing else.
    np.testing.assert_array_equal(before[WITNESS], after[WITNESS])
    moved = np.sqrt(sum(np.sum((before[name] - after[name]).astype(float) ** 2) for name in arrays))
    assert 0 < moved <= 0.3 / 30 * (1 + 1e-4)


@pytest.mark.parametrize("way", ["NaN positions", "NaN times", "one point", "still"])
def test_no_public_constant_of_the_plan_changes(tmp_path, way):
    """N, q, sigma, C, divisor, steps and weights: the plan has the same hash."""
    hashes = []
    for spoil in (lambda *_: None, WAYS[way]):
        rows = columns()
        spoil(rows, rows["vehicle"] == np.unique(rows["vehicle"])[5])
        found = table.of_rows(rows, licence="CC0-1.0", identity="physical", origin="synthetic")
        table.write(found, tmp_path / "drives.parquet")
        experiment = Experiment.model_validate(
            {
                "name": "x",
                "data": {"path": str(tmp_path / "drives.parquet")},
                "pretraining": {"path": "none"},
                "privacy": {"noise_multiplier": 3.0},
                "training": {"num_rounds": 2},
            }
        )
        hashes.append(prepare(experiment, run=32 * "0").plan.hash)
    assert hashes[0] == hashes[1]
