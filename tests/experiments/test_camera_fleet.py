"""The camera study: its settings follow public constants, its page says what its rows say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.camera_fleet import __main__ as study
from experiments.camera_fleet import page, train
from experiments.camera_fleet.__main__ import Study, key_of, settings_for, signal
from experiments.camera_fleet.fleets import REGIONS, Size
from experiments.camera_fleet.train import NO_NOISE, Settings
from fedfsd.task.camera import fleet
from fedfsd.task.camera.task import Camera


def row(
    what: str, rung: str, cars: int, epsilon: float, fde: float, seed: int = 1, part: str = "head"
) -> dict:
    public = "" if rung in ("straight on", "constant yaw rate") else "public"
    spread = dict(zip(REGIONS, fde + np.array([-0.2, 0.0, 0.1, 0.1]), strict=True))
    return {**key_of(what, public, part if public else "", rung, cars, epsilon, seed), "fde": spread}


ROWS = [
    row("ladder", "straight on", 0, 0.0, 5.0),
    row("ladder", "start", 0, 0.0, 3.0),
    row("ladder", "pooled", 1000, NO_NOISE, 2.0),
    row("ladder", "federated", 1000, NO_NOISE, 2.2),
    row("ladder", "federated", 1000, 4.0, 2.3),
    row("ladder", "federated", 1000, 4.0, 2.5, seed=2),
    row("ladder", "alone", 1000, 4.0, 2.35),
    *(row("size", "federated", cars, NO_NOISE, 2.2) for cars in (250, 1000)),
    row("size", "federated", 250, 4.0, 2.9),
    row("size", "federated", 1000, 4.0, 2.3),
]


def test_the_page_says_shares_spread_and_the_rule():
    text = page.text(ROWS)
    assert "| federated, epsilon 4 | 2.20 | 2.40 | 2.50 | 2.50 | 2.400 ± 0.141 |" in text
    assert "epsilon 4: 75% of what the same training gains without noise, 60% of what pooled" in text
    assert "worse than the public start in none" in text
    assert "alone at this epsilon in CN, EU, SG, US" in text
    assert "epsilon 4: 1000 cars" in text


def test_the_page_can_be_put_into_the_readme_and_drawn(tmp_path):
    (tmp_path / "README.md").write_text("before\n<!-- study -->\nold\n<!-- end of study -->\nafter\n")
    page.publish(ROWS, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- study -->\n### The head alone")
    assert text.endswith("<!-- end of study -->\nafter\n")
    assert "old" not in text
    assert "<svg" in (tmp_path / "study.svg").read_text()


def test_the_command_passes_on_what_is_asked(tmp_path, monkeypatch):
    made: list[Study] = []
    monkeypatch.setattr(study, "without_learning", made.append)
    monkeypatch.setattr(study, "search", lambda *_: None)
    monkeypatch.setattr(study, "climb", lambda *_: None)
    monkeypatch.setattr(page, "write", lambda *_: None)
    study.main(["--parts", "head", "-o", str(tmp_path)])
    study.main(["--parts", "head", "-o", str(tmp_path), "--plain", "--minutes", "0"])
    assert [one.plain for one in made] == [False, True]
    assert made[0].until == math.inf > made[1].until


def test_settings_are_those_of_the_nearest_signal(tmp_path):
    made = Study(Size(10, 10, 1, 10, 10), 1000, 100, tmp_path, steps=1)
    for cars, epsilon, best in ((100, 4.0, "0.1"), (100, NO_NOISE, "1.5")):
        for step, fde in (("0.1", 2.0 if best == "0.1" else 3.0), ("1.5", 2.0 if best == "1.5" else 3.0)):
            made.rows.append(row("search", step, cars, epsilon, fde))
    size = 1365
    exact = settings_for(made, "public", "head", size, 100, 4.0)
    assert exact.step == pytest.approx(0.1)
    assert settings_for(made, "public", "head", size, 10, 1.0).step == pytest.approx(0.1)
    assert settings_for(made, "public", "head", size, 1000, NO_NOISE).step == pytest.approx(1.5)
    between = settings_for(made, "public", "head", size, 1000, 4.0)
    assert 0.1 < between.step < 1.5
    assert signal(size, 200, 4.0, 20) == pytest.approx(2 * signal(size, 100, 4.0, 20))
    assert math.isinf(signal(size, 1, NO_NOISE, 20))


def test_training_here_is_the_engines(tmp_path):
    """With next to no noise and nothing clipped a round is gradient descent on the mean of all frames."""
    fleet.write(tmp_path / "eu.parquet", ["EU"], cars=6, frames=2, seed=1)
    task = Camera({"shrink": 4})
    found = task.examples(task.tables(str(tmp_path / "eu.parquet")), test=False)
    start = train.start_of(task, task.model("conv", {}, seed=1), ["head"], 2, found)
    assert start.behind
    clip, rate = 20.0, 0.01
    free = train.replace(start, clip=clip)
    arrays = train.federated(free, {"EU": free.place(found)}, NO_NOISE, Settings(1, rate * clip))
    model = start.with_arrays(start.initial)
    inputs = [torch.from_numpy(np.array(array)) for array in found.inputs.values()]
    targets = {name: torch.from_numpy(array) for name, array in found.targets.items()}
    task.loss(model(*inputs), targets).mean().backward()
    gradient = model.head.linear.weight.grad.numpy()
    moved = (start.initial["head.linear.weight"] - arrays["head.linear.weight"]) / rate
    noise = 1e-3 * clip / len(found.vehicles)  # of "no noise", one sigma
    assert np.abs(gradient).max() > 30 * noise
    assert np.abs(moved - gradient).max() < 6 * noise


def test_the_commands_parts_are_those_of_the_model():
    model = Camera({"shrink": 4}).model(study.MODEL, study.OPTIONS, seed=1)
    for words in study.PARTS.values():
        assert train.backbone.trained(model, words)
    assert set(study.ROUNDS) == set(study.PARTS)
    assert Path(study.HERE / "README.md").exists()
