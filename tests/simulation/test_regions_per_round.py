"""A run that asks some of its regions in each round: its books, its audit, and its bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fedfsd.audit.evidence import load
from fedfsd.audit.verify import verify
from fedfsd.config.experiment import Experiment
from fedfsd.federation.grid import ProcessGrid
from fedfsd.gate.gate import open_ledger
from fedfsd.plan import plan as plans
from fedfsd.report.run_folder import Folder, releases
from fedfsd.simulation.run import CLIENT, node_config, run_on

REGIONS = ("CN", "EU", "US")


def conducted(drives_path: str, output: Path, *, workers: int, mode: str = "rehearsal", **changes):
    experiment = Experiment.model_validate(
        {
            "name": "some",
            "mode": mode,
            "data": {"path": drives_path},
            "pretraining": {"path": "none"},
            # Large enough for its arrays to go by shared memory.
            "model": {"name": "transformer", "options": {"width": 64}, "witness_size": 30_000},
            "privacy": {"target_epsilon": 4.0, "target_delta": 1e-3, "sample_rate": 0.5},
            # The learning rate of a region's own round is that of the plan's.
            "training": {"num_rounds": 5, "device": "cpu", "schedule": "cosine"},
            "server": {"regions_per_round": 2, "quorum": 1.0},
        }
    )
    nodes = {number: node_config(experiment, output, name) for number, name in enumerate(REGIONS, start=2)}
    with ProcessGrid(CLIENT, nodes, workers=workers) as grid:
        return run_on(grid, experiment, output=output)


@pytest.fixture(scope="module")
def private(drives_path, tmp_path_factory):
    return conducted(drives_path, tmp_path_factory.mktemp("private") / "run", workers=2, mode="private")


def test_a_region_books_the_rounds_that_ask_it_and_no_other(private):
    folder = Folder(private.path)
    plan = plans.read((private.path / "plan.json").read_text())
    assert sorted(plan.rounds_of(name) for name in REGIONS) == [3, 3, 4]
    for name in REGIONS:
        ledger = open_ledger(folder.region(name))
        run = ledger.state.runs[plan.hash]
        assert sorted(run.bookings) == list(range(1, plan.rounds_of(name) + 1))
        assert all(one.release is not None for one in run.bookings.values())
        (balance,) = ledger.balances()
        assert (balance.held, balance.rounds) == (0, plan.rounds_of(name))
        assert balance.spent == run.entry.rho
        ledger.close()
        mine = private.metrics["regions"][name]
        assert 3.9 < mine["epsilon"] <= 4.0
        assert mine["rounds_released"] == plan.rounds_of(name)
    lines = folder.rounds()[1:]
    assert [sorted(name for name, _, _ in releases(line)) for line in lines] == [
        sorted(plan.asked(line["round"])) for line in lines
    ]


def test_its_evidence_holds(private):
    bundles = sorted((private.path / "bundles").glob("*.zip"))
    notes = sorted((private.path / "checkpoints").glob("*.note"))
    kept = {"receipts": "receipts.json", "trust": "trust.keys", "releases": "releases"}
    report = verify(load([*bundles, *notes], **{name: private.path / file for name, file in kept.items()}))
    assert report.headline == "holds", str(report)
    assert str(report).count("updates, of which these would show") == 3


def test_the_model_is_the_same_whatever_the_number_of_workers(drives_path, tmp_path):
    models = [
        load_file(conducted(drives_path, tmp_path / str(count), workers=count).path / "model.safetensors")
        for count in (1, 3)
    ]
    assert models[0].keys() == models[1].keys()
    assert all((models[0][name] == models[1][name]).all() for name in models[0])
