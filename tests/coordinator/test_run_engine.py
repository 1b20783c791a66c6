"""A whole run on a real SuperLink that is killed meanwhile; behind its nodes, regions that train."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import experiment_of
from federation import Federation
from flower.engine_kit import Region, RunningEngine
from safetensors.numpy import load_file

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.coordinator import run as runs
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.gate import arrays as gate_arrays
from fedfsd.ledger.key import SigningKey
from fedfsd.plan import plan as plans
from fedfsd.runner.region import open_region, run_round
from fedfsd.simulation import real

REGIONS = {"CN": 40, "EU": 30, "US": 20}


@pytest.fixture
def written(drives_path):
    return experiment_of(drives_path, rounds=5, rosters=REGIONS)


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "hub"
    for inner in ("receipts", "heads"):
        (folder / inner).mkdir(parents=True)
    SigningKey.generate("fedfsd/coordinator/roads").write(folder / "coordinator.key")
    (folder / "coordinator.toml").write_text('name = "roads"\n')
    return open_coordinator(folder)


def trainer(federation, name, before=lambda round: None):
    """What a region does with an instruction, on the books of the fake federation."""
    (config,) = [one for one in federation.configs.values() if one.name == name]
    region = open_region(config)

    def train(node, instruction):
        before(instruction.round)
        plan = plans.read(instruction.plan)
        released = run_round(region, instruction.arrays, plan, instruction.round)
        update = gate_arrays.view(released.content, plan.model.arrays)
        node.reply(instruction.envelope, update, released.entry_hash, released.sha256)

    return train


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_run_on_a_real_engine_gives_the_model_of_one_in_process(tmp_path, written, hub):
    whole, _ = real.begin(load(Experiment, written), tmp_path / "whole")
    real.serve(Federation(tmp_path / "a", written), whole.path, hub.folder)
    federation = Federation(tmp_path / "b", written)
    where, _ = real.begin(load(Experiment, written), tmp_path / "run")
    conductor = runs.Conductor(
        where.path, lambda: where.complete, lambda: real.stopped(where), lambda: len(where.rounds())
    )
    with RunningEngine(tmp_path / "flower") as engine:
        kills = iter([3])

        def killed(round):
            if round == 3 and next(kills, None):  # its answer is tried again until the SuperLink is back
                engine.kill("superlink")
                engine.start("superlink")

        befores = {"EU": killed}
        regions = []
        try:
            for name in REGIONS:
                train = trainer(federation, name, befores.get(name, lambda round: None))
                regions.append(Region(engine, name, train))
            runs.follow(engine, conductor, coordinator=hub, say=print)
        finally:
            for region in regions:
                region.close()
    rounds = where.rounds()
    assert [line["round"] for line in rounds] == [0, 1, 2, 3, 4, 5]
    assert all(one["outcome"] == "released" for line in rounds[1:] for one in line["regions"].values())
    print("seconds a round:", [line["seconds"] for line in rounds[1:]])
    for name, array in load_file(whole.model).items():
        np.testing.assert_allclose(load_file(where.model)[name], array, atol=1e-6)
    assert where.read("metrics.json")["pooled"] == whole.read("metrics.json")["pooled"]
