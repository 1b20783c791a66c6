"""``make federation`` in short: one experiment file, on one machine and over the border, gives one model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from stage_kit import Typed

import fedfsd
from experiments.federation.__main__ import HERE, main
from fedfsd.plan.plan import WITNESS


@pytest.mark.slow
@pytest.mark.timeout(600)  # nine processes start, on two cores
def test_a_rehearsal_over_the_border_gives_the_model_of_the_simulation(tmp_path, capfd):
    text = (HERE / "experiment.toml").read_text(encoding="utf-8")
    text = text.replace('mode = "private"', 'mode = "rehearsal"')
    text = text.replace("num_rounds = 20", "num_rounds = 3\nlocal_steps = 2")
    text = text.replace('path = "public"', 'path = "public"\nsteps = 100')
    text = text.replace("[regions.CN]", "[regions.CN]\nspeed = 0.5")  # unequal regions, too
    # A part of the model alone, on what its own code makes of the rest.
    text += '\n[model]\ntrainable = "head"\nbackbone = "model"\n'
    experiment = tmp_path / "rehearsal.toml"
    experiment.write_text(text, encoding="utf-8")

    folder = tmp_path / "federation"
    code = main(["-o", str(folder), "--experiment", str(experiment), "--test-only"], stages=Typed)
    said = capfd.readouterr()
    assert code == 11, said.err  # what is left proves nothing: the noise of a rehearsal is known
    assert "cannot decide: rehearsal" in said.out

    run = folder / "run"
    simulated = fedfsd.simulate(experiment, output=tmp_path / "simulated")
    assert _plan(run) == _plan(simulated.path)
    assert {name: one["local_steps"] for name, one in _plan(run)["regions"].items()} == {
        "CN": 1,
        "EU": 2,
        "US": 2,
    }
    far, near = load_file(run / "model.safetensors"), load_file(simulated.path / "model.safetensors")
    assert set(far) == set(near) > {one["name"] for one in _plan(run)["model"]["arrays"]} - {WITNESS}
    for name, array in near.items():
        np.testing.assert_allclose(far[name], array, rtol=1e-5, atol=1e-6)
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for name, mine in simulated.metrics["regions"].items():
        assert found["regions"][name]["fde_m"] == pytest.approx(mine["fde_m"], rel=1e-4)
        assert found["regions"][name]["rounds_released"] == 3
    assert (run / "report.html").read_text(encoding="utf-8").count("rehearsal") > 0
    # The region's own figure stays with its runner.
    assert list((folder / "cn" / "train").glob("figures.jsonl"))
    assert not [path for path in folder.glob("coordinator/**/*") if path.name == "figures.jsonl"]


def _plan(run: Path) -> dict:
    return json.loads((run / "plan.json").read_text(encoding="utf-8"))
