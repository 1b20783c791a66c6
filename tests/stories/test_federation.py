"""``make federation`` in short: one experiment file, on one machine and over the border, gives one model."""

from __future__ import annotations

import json
from functools import partial
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
    text += "\n[regions.CN]\nspeed = 0.5\n"  # unequal regions, too
    text = text.replace("[server]\n", "[server]\nregions_per_round = 2\n")
    # A part of the model alone, on what its own code makes of the rest.
    text += '\n[model]\ntrainable = "head"\nbackbone = "model"\n'
    experiment = tmp_path / "rehearsal.toml"
    experiment.write_text(text, encoding="utf-8")

    folder = tmp_path / "federation"
    lines: list[str] = []
    stages = partial(Typed, say=lines.append)
    code = main(["-o", str(folder), "--experiment", str(experiment), "--test-only"], stages=stages)
    said = capfd.readouterr()
    assert code == 11, said.err  # what is left proves nothing: the noise of a rehearsal is known
    assert "cannot decide: rehearsal" in said.out

    _demand_few(lines)
    run = folder / "run"
    # The regions declared these two; a simulation would count them, and be another experiment.
    declared = [
        f"regions.{name}.{key}={one[key]}"
        for name, one in _plan(run)["regions"].items()
        for key in ("roster", "identity")
    ]
    simulated = fedfsd.simulate(experiment, overrides=declared, output=tmp_path / "simulated")
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
        assert found["regions"][name]["rounds_released"] == 2
    assert (run / "report.html").read_text(encoding="utf-8").count("rehearsal") > 0
    # The region's own figure stays with its runner.
    assert list((folder / "cn" / "train").glob("figures.jsonl"))
    assert not [path for path in folder.glob("coordinator/**/*") if path.name == "figures.jsonl"]


def _demand_few(lines: list[str]) -> None:
    """From nothing to joined and working: five commands a region, two of them on the officer's machine."""
    typed = [line.removeprefix("$ fedfsd ") for line in lines if line.startswith("$ fedfsd ")]
    begun = typed[: next(at for at, line in enumerate(typed) if line.startswith("coordinator run"))]
    hub = [line.split()[1] for line in begun if line.startswith("coordinator")]
    assert hub == ["init", "up", *["invite"] * 6]
    for name in ("CN", "EU", "US"):
        theirs = [line for line in begun if not line.startswith("coordinator")]
        mine = [line for line in theirs if f"fedfsd/{name}/" in line or f"{name.lower()}/" in line]
        done = [" ".join(line.split()[:2]) for line in mine]
        assert done == ["keys new", "region init", "region sign", "region add", "region up"]
    assert len(begun) == len(hub) + 3 * 5


def _plan(run: Path) -> dict:
    return json.loads((run / "plan.json").read_text(encoding="utf-8"))
